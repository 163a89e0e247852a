use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

const ID: &str = "DUNLINEXAMPLEKEY2345";
const SECRET: &str = "an-example_secret/of+forty=characters123";

fn write_key(mode: u32, text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(FILE_NAME);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    (dir, path)
}

fn file(id: &str, secret: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[track_caller]
fn check_parse(text: &str) {
    let credentials = parse(text.as_bytes()).expect("well formed");
    assert_eq!(credentials.access_key_id(), ID);
    assert_eq!(credentials.secret_access_key(), SECRET);
}

#[test]
fn a_key_is_made_once_and_found_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = Credentials::load_or_create(dir.path()).expect("made");
    let path = dir.path().join(FILE_NAME);
    assert_eq!(mode(&path), 0o600);
    let names: Vec<_> = fs::read_dir(dir.path())
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert_eq!(names, [FILE_NAME], "nothing is left beside it");

    for found in [
        Credentials::load_or_create(dir.path()).expect("found"),
        Credentials::load(&path).expect("found"),
    ] {
        assert_eq!(found.access_key_id(), made.access_key_id());
        assert_eq!(found.secret_access_key(), made.secret_access_key());
    }
}

#[test]
fn the_key_has_the_form_of_an_aws_key() {
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let key = Credentials::generate().expect("random");
        let (id, secret) = (key.access_key_id(), key.secret_access_key());
        assert!(id.starts_with("DUNLIN"), "{id}");
        assert_eq!((id.len(), secret.len()), (20, 40));
        Credentials::new(id, secret).expect("well formed");
        assert!(seen.insert(id.to_owned()) && seen.insert(secret.to_owned()));
    }
}

#[test]
fn the_file_is_an_aws_credentials_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = Credentials::load_or_create(dir.path()).expect("made");
    let text = fs::read_to_string(dir.path().join(FILE_NAME)).expect("readable");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        lines,
        [
            "[default]",
            &format!("aws_access_key_id = {}", made.access_key_id()),
            &format!("aws_secret_access_key = {}", made.secret_access_key()),
        ]
    );
}

#[test]
fn hosts_that_start_together_get_the_same_key() {
    let dir = tempfile::tempdir().expect("a folder");
    let ids: HashSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Credentials::load_or_create(dir.path()).expect("a key")))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic").access_key_id)
            .collect()
    });
    assert_eq!(ids.len(), 1);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
}

#[test]
fn the_secret_is_not_shown() {
    let credentials = Credentials::new(ID, SECRET).expect("valid");
    let shown = format!("{credentials:?} {credentials:#?}");
    assert!(shown.contains(ID) && !shown.contains(SECRET), "{shown}");
}

#[test]
fn a_file_that_others_may_touch_is_refused_and_left_alone() {
    for bits in [0o644, 0o640, 0o620, 0o601, 0o660, 0o700, 0o4600] {
        let (dir, path) = write_key(bits, &file(ID, SECRET));
        let error = Credentials::load_or_create(dir.path()).expect_err("too open");
        assert!(matches!(error, CredentialsError::Permissions { .. }));
        let text = error.to_string();
        assert!(
            text.contains(&format!("{path:?} has mode {bits:04o}")) && text.contains("chmod 600"),
            "{text}"
        );
        assert_eq!(mode(&path), bits);
    }
    for bits in [0o600, 0o400] {
        let (_dir, path) = write_key(bits, &file(ID, SECRET));
        Credentials::load(&path).expect("narrow enough");
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let (dir, path) = write_key(0o600, &file(ID, SECRET));
    let moved = dir.path().join("elsewhere");
    fs::rename(&path, &moved).expect("moved");
    for target in [moved, dir.path().join("nowhere")] {
        symlink(target, &path).expect("linked");
        let error = Credentials::load_or_create(dir.path()).expect_err("a link");
        assert!(
            matches!(error, CredentialsError::SymbolicLink { .. }),
            "{error}"
        );
        fs::remove_file(&path).expect("removed");
    }

    fs::create_dir(&path).expect("a folder");
    let error = Credentials::load_or_create(dir.path()).expect_err("a folder");
    assert!(
        matches!(error, CredentialsError::NotAFile { .. }),
        "{error}"
    );
    fs::remove_dir(&path).expect("removed");

    // Opening it for reading must not wait for a writer.
    let owner_only = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, owner_only, 0).expect("a FIFO");
    let error = Credentials::load(&path).expect_err("a FIFO");
    assert!(
        matches!(error, CredentialsError::NotAFile { .. }),
        "{error}"
    );
}

#[test]
fn a_missing_file_or_folder_is_told_apart_from_a_bad_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(FILE_NAME);
    let error = Credentials::load(&path).expect_err("none yet");
    assert!(matches!(error, CredentialsError::NotFound { .. }));
    assert!(error.to_string().contains("dunlin up"), "{error}");

    let error = Credentials::load_or_create(&dir.path().join("none")).expect_err("no folder");
    assert!(
        matches!(
            error,
            CredentialsError::Io {
                operation: "write",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_malformed_file_is_refused_and_left_alone() {
    let text = "[default]\nnonsense\n";
    let (dir, path) = write_key(0o600, text);
    let error = Credentials::load_or_create(dir.path()).expect_err("malformed");
    assert!(error.to_string().contains("line 2 is neither"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("readable"), text);

    let (_dir, path) = write_key(0o600, &"#".repeat(MAX_FILE_BYTES as usize + 1));
    let error = Credentials::load(&path).expect_err("too large");
    assert!(error.to_string().contains("larger than 65536"), "{error}");
}

#[test]
fn the_default_profile_is_read_as_aws_clients_read_it() {
    check_parse(&file(ID, SECRET));
    check_parse(&file(ID, SECRET).replace('\n', "\r\n"));
    check_parse(&format!("\u{feff}{}", file(ID, SECRET)));
    check_parse(file(ID, SECRET).trim_end());
    check_parse(&format!(
        "# a comment\n; another\n\n[other]\naws_access_key_id=WRONGWRONGWRONGWRONG\n\
         aws_secret_access_key=wrong\naws_session_token=wrong\n  [ default ] # mine\n\
         region = edge-1\nAWS_Access_Key_ID={ID}\n\t aws_secret_access_key  =  {SECRET} \t\n\
         #aws_session_token = x\n[profile default]\naws_access_key_id = WRONGWRONGWRONGWRONG\n"
    ));
    // Of two values the last counts.
    check_parse(&format!(
        "{}{}",
        file("WRONGWRONGWRONGWRONG", "wrongwrongwrongwrong"),
        file(ID, SECRET)
    ));
}

#[test]
fn what_is_wrong_in_the_file_is_said_without_the_secret() {
    let missing = |name| Malformed::Missing { name };
    for (text, expected) in [
        (String::new(), missing(ACCESS_KEY_ID)),
        (
            file(ID, SECRET).replace("default", "other"),
            missing(ACCESS_KEY_ID),
        ),
        (
            format!("[default]\naws_access_key_id={ID}"),
            missing(SECRET_ACCESS_KEY),
        ),
        (
            format!("[default\naws_access_key_id={ID}"),
            Malformed::Line { line: 1 },
        ),
        (
            format!("\n\n[default] x\n{SECRET}"),
            Malformed::Line { line: 3 },
        ),
        (
            format!("[default]\n{}", &SECRET[..10]),
            Malformed::Line { line: 2 },
        ),
        (file("", SECRET), Malformed::AccessKeyId),
        (file("SHORT", SECRET), Malformed::AccessKeyId),
        (file(&"A".repeat(129), SECRET), Malformed::AccessKeyId),
        (file("DUNLIN/EXAMPLE/KEY", SECRET), Malformed::AccessKeyId),
        (file(ID, ""), Malformed::SecretAccessKey),
        (file(ID, "short"), Malformed::SecretAccessKey),
        (file(ID, &"s".repeat(257)), Malformed::SecretAccessKey),
        (
            file(ID, "with spaces in the middle"),
            Malformed::SecretAccessKey,
        ),
        (file(ID, "sécrétsécrétsécrét"), Malformed::SecretAccessKey),
        (
            format!("{}aws_session_token = t", file(ID, SECRET)),
            Malformed::SessionToken,
        ),
    ] {
        let error = parse(text.as_bytes()).expect_err("malformed");
        assert_eq!(error, expected, "{text}");
        assert!(!error.to_string().contains(&SECRET[..10]), "{error}");
    }
    assert_eq!(
        parse(b"[default]\n\xff").expect_err("bytes"),
        Malformed::NotText
    );
}
