use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::Shell;
use tempfile::TempDir;

use super::*;
use crate::config::{Signatures, Values, Variables};

fn command(line: &str) -> Result<Command, Exit> {
    parse(line.split(' ')).map(|cli| cli.command)
}

#[test]
fn the_declaration_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_exit_code_of_a_wrong_command_line_is_64() {
    for (line, exit) in [
        ("dunlin", Exit::Usage),
        ("dunlin upp", Exit::Usage),
        ("dunlin up --http nowhere", Exit::Usage),
        ("dunlin up --drain-timeout 30", Exit::Usage),
        ("dunlin invoke a/b", Exit::Usage),
        ("dunlin invoke a:b/c", Exit::Usage),
        ("dunlin invoke a --type Event", Exit::Usage),
        ("dunlin invoke a --host ftp://x", Exit::Usage),
        ("dunlin new kafka a", Exit::Usage),
        ("dunlin backup", Exit::Usage),
        ("dunlin --help", Exit::Ok),
        ("dunlin up --help", Exit::Ok),
        ("dunlin --version", Exit::Ok),
    ] {
        assert_eq!(command(line).err(), Some(exit), "{line}");
    }
    let codes = [Exit::Ok, Exit::Failed, Exit::FunctionFailed, Exit::Usage].map(Exit::code);
    assert_eq!(codes, [0, 1, 2, 64]);
    for code in codes {
        assert!(AFTER_HELP.contains(&format!("\n  {code} ")), "{code}");
    }
}

#[test]
fn up_says_what_wins_over_the_manifest() {
    let Ok(Command::Up(args)) = command(
        "dunlin up box --http localhost:0 --admin 127.0.0.1:2 --metrics [::1]:3 --state s \
         --watch --drain-timeout 5s --insecure-admin --no-build",
    ) else {
        panic!();
    };
    assert_eq!(args.path, Path::new("box"));
    assert!(args.watch && args.no_build);
    assert_eq!(args.state_dir(Path::new("box/dunlin.toml")), Path::new("s"));
    let overrides = args.overrides();
    assert_eq!(overrides.http.unwrap().to_string(), "127.0.0.1:0");
    assert_eq!(overrides.admin.unwrap().to_string(), "127.0.0.1:2");
    assert_eq!(overrides.metrics.unwrap().to_string(), "[::1]:3");
    assert_eq!(overrides.drain_timeout, Some(Duration::from_secs(5)));
    assert_eq!(overrides.signatures, Signatures::Waived);

    let Ok(Command::Up(args)) = command("dunlin up") else {
        panic!();
    };
    assert_eq!(args.path, Path::new("."));
    assert_eq!(args.overrides().signatures, Signatures::Required);
    let state = args.state_dir(Path::new("box/dunlin.toml"));
    assert_eq!(state, Path::new("box/.dunlin"));
}

#[test]
fn invoke_takes_a_target_and_an_event() {
    use client::Payload;
    use invoke::InvocationType;
    let args = |line: &str| match command(line) {
        Ok(Command::Invoke(args)) => args,
        other => panic!("{line}: {other:?}"),
    };
    let plain = args("dunlin invoke hello");
    assert_eq!(plain.target.name.as_str(), "hello");
    assert_eq!(plain.target.qualifier, None);
    assert_eq!(plain.data, Payload::Inline("{}".to_owned()));
    assert_eq!(plain.invocation_type, InvocationType::RequestResponse);
    assert_eq!(plain.host.url, "http://127.0.0.1:3001");

    let full =
        args("dunlin invoke hello:$LATEST --data @e.json --host http://box:1/ --type dryrun --log");
    assert_eq!(full.target.qualifier.as_deref(), Some("$LATEST"));
    assert_eq!(full.data, Payload::File("e.json".into()));
    assert_eq!(full.host.url, "http://box:1");
    assert_eq!(full.invocation_type.as_str(), "DryRun");
    assert!(full.log);
    assert_eq!(args("dunlin invoke a --data @-").data, Payload::Stdin);
}

#[test]
fn check_counts_functions_and_routes_or_names_every_problem() {
    let folder = TempDir::new().unwrap();
    let manifest = folder.path().join("dunlin.toml");
    let check = |text: &str, values| {
        fs::write(&manifest, text).unwrap();
        check::check(folder.path(), &Variables::default(), values)
    };
    let component = r#"(component (instance $i) (export "dunlin:event/http@0.1.0" (instance $i)))"#;
    let component = wat::parse_str(component).unwrap();
    fs::write(folder.path().join("a.wasm"), component).unwrap();
    let function = "component = \"a.wasm\"\nsecrets = { KEY = { env = \"KEY\" } }";
    let text = format!(
        "[function.a]\n{function}\n[[function.a.http]]\npath = \"/a\"\n\
         [[function.a.http]]\npath = \"/b\"\n"
    );
    assert_eq!(
        check("", Values::Read).unwrap(),
        "ok: 0 functions, 0 routes"
    );
    assert_eq!(
        check(&text, Values::Skip).unwrap(),
        "ok: 1 function, 2 routes"
    );
    let problems = check(&text, Values::Read).unwrap_err();
    assert_eq!(problems.0.len(), 1);
    assert_eq!(fail(&problems.into()), Exit::Usage);
    assert_eq!(fail(&anyhow::anyhow!("another error")), Exit::Failed);
}

#[tokio::test]
async fn build_without_a_package_or_manifest_says_so() {
    let folder = TempDir::new().unwrap();
    let args = build::Args {
        path: folder.path().to_owned(),
    };
    let error = build::run(&args, &Variables::default()).await.unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
}

#[test]
fn completions_and_manual_know_every_subcommand() {
    let folder = TempDir::new().unwrap();
    man::write(folder.path()).unwrap();
    let bash = String::from_utf8(completions::generate(Shell::Bash)).unwrap();
    let page = String::from_utf8(man::page().unwrap()).unwrap();
    assert!(page.contains("Exit codes"), "{page}");
    for subcommand in Cli::command().get_subcommands() {
        let name = subcommand.get_name();
        assert!(bash.contains(&format!("dunlin__subcmd__{name}")), "{name}");
        assert!(page.contains(&format!("dunlin\\-{name}(1)")), "{name}");
        let file = folder.path().join(format!("dunlin-{name}.1"));
        assert!(file.is_file(), "{}", file.display());
    }
}

#[test]
fn new_makes_a_package_with_the_name_filled_in() {
    let folder = TempDir::new().unwrap();
    for template in [new::Template::Http, new::Template::Invoke] {
        let target = folder.path().join(format!("{template:?}"));
        new::create(template, "my-fn_2", &target, "\"0.1\"").unwrap();
        let mut texts = Vec::new();
        collect(&target, &mut texts);
        for text in &texts {
            assert!(!text.contains("{{"), "{text}");
        }
        let manifest: toml::Table = fs::read_to_string(target.join("Cargo.toml"))
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-fn_2"));
        check::check(&target, &Variables::default(), Values::Read).unwrap();

        fs::write(target.join("Cargo.toml"), "mine").unwrap();
        let error = new::create(template, "my-fn_2", &target, "").unwrap_err();
        assert!(
            error.to_string().contains("choose another name, or remove"),
            "{error}"
        );
        assert_eq!(
            fs::read_to_string(target.join("Cargo.toml")).unwrap(),
            "mine"
        );
    }
}

/// The text of every file below a folder.
fn collect(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, texts);
        } else {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn new_refuses_names_that_cannot_be_used() {
    let too_long = "a".repeat(65);
    for name in [
        "", "a b", "../a", "a/b", "Hello", "9lives", "-a", "fn", "test", "ä", &too_long,
    ] {
        let exit = parse(["dunlin", "new", "http", "--", name]).err();
        assert_eq!(exit, Some(Exit::Usage), "{name}");
    }
}

#[test]
fn the_sdk_is_taken_from_the_sources_where_there_are_any() {
    let folder = TempDir::new().unwrap();
    assert_eq!(new::sdk(folder.path()), "\"0.1\"");
    fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    let path = folder.path().canonicalize().unwrap();
    assert_eq!(
        new::sdk(folder.path()),
        format!("{{ path = \"{}\" }}", path.display())
    );
}
