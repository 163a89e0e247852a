use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::function::Egress;
use crate::function::{
    AsyncPolicy, ComponentSource, Fuel, Isolation, Limits, Mount, Peer, Route, RouteMethod, Secret,
};

mod egress;
mod events;
mod key_value;
mod mounts;
mod queues;
mod reach;
mod values;

/// A folder with a package `pkg`, a component `ok.wasm` and some files, and what a
/// manifest in it comes to.
struct Folder {
    dir: TempDir,
    variables: Variables,
    overrides: Overrides,
    values: Values,
}

/// A component that exports an empty instance of that name.
fn component(export: &str) -> Vec<u8> {
    let text = format!("(component (instance $i) (export {export:?} (instance $i)))");
    wat::parse_str(text).unwrap()
}

impl Folder {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let folder = Self {
            dir,
            variables: [("EDGE_REGION", "north"), ("KEY", "hunter2")]
                .into_iter()
                .collect(),
            overrides: Overrides::default(),
            values: Values::Read,
        };
        folder.file("pkg/Cargo.toml", b"");
        folder.file("ok.wasm", &component("dunlin:event/http@0.1.0"));
        folder
    }

    fn file(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self, text: &str) -> Result<Config, Problems> {
        self.file(MANIFEST, text.as_bytes());
        let sources = Sources {
            overrides: &self.overrides,
            variables: &self.variables,
            values: self.values,
        };
        Config::load(&self.path(MANIFEST), sources)
    }

    fn ok(&self, text: &str) -> Config {
        self.load(text)
            .unwrap_or_else(|problems| panic!("{problems}\n\nin\n{text}"))
    }

    /// The problems, with the folder left out of the paths.
    fn problems(&self, text: &str) -> Vec<String> {
        let problems = self.load(text).expect_err(text).to_string();
        let folder = format!("{}/", self.dir.path().display());
        problems
            .replace(&folder, "")
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

fn function(lines: &str) -> String {
    format!("[function.f]\ncomponent = \"ok.wasm\"\n{lines}\n")
}

fn peer(text: &str) -> Peer {
    Peer::parse(text).unwrap()
}

fn host(lines: &str) -> String {
    format!("[host]\n{lines}\n")
}

#[test]
fn nothing_written_is_the_default() {
    for text in ["", "[host]", "[host]\n[function]\n"] {
        assert_eq!(Folder::new().ok(text), Config::default(), "{text}");
    }
}

#[test]
fn every_key_of_the_host_counts() {
    let text = r#"
        [host]
        http = "0.0.0.0:8080"
        admin = "[::1]:8081"
        metrics = "localhost:9464"
        concurrency = 10
        admission-wait = "1s"
        memory-budget = "4GiB"
        max-memory = "1GiB"
        scratch-budget = "2GiB"
        sockets = ["tcp://10.0.0.5:5432", "udp://[fd00::53]:53"]
        ready = 20
        ready-per-function = 6
        ready-memory = "3MiB"
        mapped = 30
        rest-after = "7s"
        drain-timeout = "5s"
        header-timeout = "1s"
        body-timeout = "2s"
        idle-timeout = "3s"
        min-rate = "16KiB"
        max-connections = 4
        max-header-bytes = "8KiB"
        max-headers = 5
        memory-reset = "memset"
        log-invocations = "failures"
        egress = ["https://*.example.com"]
        egress-connections = 50
        account = "000000000001"
        region = "box-7"
    "#;
    let expected = HostConfig {
        http: HttpConfig {
            listen: "0.0.0.0:8080".parse().unwrap(),
            header_timeout: Duration::from_secs(1),
            body_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(3),
            min_rate: ByteSize::kib(16),
            max_connections: 4,
            max_header_bytes: ByteSize::kib(8),
            max_headers: 5,
        },
        admin: AdminConfig {
            listen: "[::1]:8081".parse().unwrap(),
            signatures: Signatures::Required,
        },
        metrics: MetricsConfig {
            listen: Some("127.0.0.1:9464".parse().unwrap()),
        },
        admission: AdmissionConfig {
            concurrency: 10,
            wait: Duration::from_secs(1),
        },
        runtime: RuntimeConfig {
            memory_budget: Some(ByteSize::mib(4096)),
            max_memory: ByteSize::mib(1024),
            scratch_budget: ByteSize::mib(2048),
            ready: 20,
            ready_per_function: 6,
            ready_memory: Some(ByteSize::mib(3)),
            mapped: 30,
            rest_after: Duration::from_secs(7),
            memory_reset: MemoryReset::Memset,
        },
        log: LogConfig {
            invocations: LogInvocations::Failures,
        },
        identity: Identity {
            account: "000000000001".to_owned(),
            region: "box-7".to_owned(),
        },
        egress: EgressConfig {
            ceiling: vec![Rule::parse("https://*.example.com").unwrap()],
            connections: 50,
            roots: Vec::new(),
        },
        mounts: BTreeMap::new(),
        sockets: ["tcp://10.0.0.5:5432", "udp://[fd00::53]:53"]
            .map(peer)
            .into(),
        drain_timeout: Duration::from_secs(5),
    };
    assert_eq!(Folder::new().ok(text).host, expected);
}

#[test]
fn every_key_of_a_function_counts() {
    let folder = Folder::new();
    folder.file("motd.txt", b"hi\n");
    folder.file("secrets/db", b"pass\r\n");
    let text = r#"
        [host]
        sockets = "tcp://10.0.0.5:5432"
        [function.second]
        component = "ok.wasm"

        [function.first]
        source = "pkg"
        memory = "64MiB"
        timeout = "1s"
        fuel = 1_000_000
        request-limit = "1MiB"
        response-limit = "2MiB"
        log-limit = "0"
        isolation = "reuse"
        scratch = "64MiB"
        sockets = "tcp://10.0.0.5:5432"
        reserved-concurrency = 100
        provisioned = 7
        weight = 50
        arguments = ["--mode", "fast"]
        environment = { REGION = { env = "EDGE_REGION" }, GREETING = "hello", MOTD = { file = "motd.txt" } }
        secrets = { DB_PASSWORD = { file = "secrets/db" }, AWS_KEY = { env = "KEY" } }
        [[function.first.http]]
        host = "API.example.com"
        method = ["GET", "POST"]
        path = "/users/{id}"
        [[function.first.http]]
        path = "/files/{*rest}"
    "#;
    let route = |host: Option<&str>, method, path: &str| Route {
        host: host.map(str::to_owned),
        method,
        path: path.to_owned(),
    };
    let only = |method: &str| RouteMethod::Only(method.to_owned());
    let text_pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let config = folder.ok(text);
    let [second, first] = config.functions.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!(second.name.as_str(), "second", "in the order of the file");
    assert_eq!(
        second.component,
        ComponentSource::File(folder.path("ok.wasm"))
    );
    assert_eq!(second.limits, Limits::default());
    assert_eq!(
        *first,
        FunctionSpec {
            name: crate::function::FunctionName::new("first").unwrap(),
            component: ComponentSource::Package {
                folder: folder.path("pkg"),
                built: None,
            },
            limits: Limits {
                memory: ByteSize::mib(64),
                timeout: Duration::from_secs(1),
                fuel: Fuel::Units(1_000_000),
                request: ByteSize::mib(1),
                response: ByteSize::mib(2),
                log: ByteSize(0),
            },
            isolation: Isolation::Reuse,
            reserved_concurrency: Some(100),
            provisioned: Some(7),
            weight: 50,
            arguments: ["--mode", "fast"].map(str::to_owned).into(),
            environment: [("GREETING", "hello"), ("MOTD", "hi"), ("REGION", "north")]
                .map(text_pair)
                .into(),
            secrets: [("AWS_KEY", "hunter2"), ("DB_PASSWORD", "pass")]
                .map(|(name, value)| Secret {
                    name: name.to_owned(),
                    value: value.to_owned(),
                })
                .into(),
            config: Vec::new(),
            egress: Egress::default(),
            mounts: Vec::new(),
            buckets: Vec::new(),
            scratch: Some(ByteSize::mib(64)),
            sockets: vec![peer("tcp://10.0.0.5:5432")],
            routes: vec![
                route(Some("api.example.com"), only("GET"), "/users/{id}"),
                route(Some("api.example.com"), only("POST"), "/users/{id}"),
                route(None, RouteMethod::Any, "/files/{*rest}"),
            ],
            events: AsyncPolicy::default(),
            queues: Vec::new(),
            schedules: Vec::new(),
            sends_to: Vec::new(),
            invokes: Vec::new(),
        }
    );
    assert_eq!(
        config.value_files,
        [folder.path("motd.txt"), folder.path("secrets/db")]
    );
}

#[test]
fn fuel_is_a_number_or_a_word() {
    for (value, fuel) in [
        ("1", Fuel::Units(1)),
        ("18446744073709551615", Fuel::Units(u64::MAX)),
        ("\"auto\"", Fuel::FromTimeout),
        ("\"off\"", Fuel::Unlimited),
    ] {
        let config = Folder::new().ok(&function(&format!("fuel = {value}")));
        assert_eq!(config.functions[0].limits.fuel, fuel);
    }
}

/// The first and the last value that are allowed, and their neighbours outside.
#[test]
fn both_ends_of_each_range_are_allowed_and_nothing_beyond() {
    let on_host: &[(&str, &[&str], &[&str])] = &[
        ("concurrency", &["1", "10_000"], &["0", "10_001", "-1"]),
        (
            "admission-wait",
            &["\"0s\"", "0", "\"30s\""],
            &["\"30001ms\""],
        ),
        (
            "memory-budget",
            &["\"1MiB\"", "\"16384GiB\""],
            &["\"1048575B\"", "\"16385GiB\""],
        ),
        (
            "max-memory",
            &["\"1MiB\"", "\"4GiB\""],
            &["\"1048575B\"", "\"4097MiB\""],
        ),
        ("scratch-budget", &["0", "\"16384GiB\""], &["\"16385GiB\""]),
        ("ready", &["0", "10_000"], &["10_001"]),
        ("ready-per-function", &["0", "1000"], &["1001"]),
        ("ready-memory", &["0", "\"16384GiB\""], &["\"16385GiB\""]),
        ("mapped", &["1", "10_000"], &["0", "10_001"]),
        (
            "rest-after",
            &["\"1s\"", "\"24h\""],
            &["\"999ms\"", "\"25h\""],
        ),
        ("drain-timeout", &["0", "\"15m\""], &["\"901s\""]),
        (
            "header-timeout",
            &["\"1ms\"", "\"15m\""],
            &["\"999us\"", "\"901s\""],
        ),
        (
            "body-timeout",
            &["\"1ms\"", "\"15m\""],
            &["\"999us\"", "\"901s\""],
        ),
        (
            "idle-timeout",
            &["\"1ms\"", "\"15m\""],
            &["\"999us\"", "\"901s\""],
        ),
        (
            "min-rate",
            &["\"0B\"", "\"1MiB\""],
            &["\"1048577B\"", "\"2MiB\""],
        ),
        ("max-connections", &["1", "1_000_000"], &["0", "1_000_001"]),
        (
            "max-header-bytes",
            &["\"8KiB\"", "\"1MiB\""],
            &["\"8191B\"", "\"1048577B\""],
        ),
        ("max-headers", &["1", "1000"], &["0", "1001"]),
        (
            "account",
            &["\"000000000000\""],
            &["\"00000000000\"", "\"0000000000000\""],
        ),
        ("region", &["\"a\""], &["\"\"", "\"North\""]),
    ];
    let in_function: &[(&str, &[&str], &[&str])] = &[
        (
            "memory",
            &["\"1MiB\"", "\"4GiB\""],
            &["\"1048575B\"", "\"4097MiB\""],
        ),
        (
            "timeout",
            &["\"1ms\"", "\"15m\""],
            &["\"999us\"", "\"901s\"", "0"],
        ),
        ("fuel", &["1"], &["0", "18446744073709551616", "-1"]),
        (
            "request-limit",
            &["\"1KiB\"", "\"64MiB\""],
            &["\"1023B\"", "\"1025MiB\""],
        ),
        (
            "response-limit",
            &["\"1KiB\"", "\"64MiB\""],
            &["\"1023B\"", "\"1025MiB\""],
        ),
        ("log-limit", &["0", "\"16MiB\""], &["\"16385KiB\""]),
        ("reserved-concurrency", &["0", "1000"], &["1001"]),
        ("provisioned", &["0", "1000"], &["1001"]),
        ("weight", &["1", "10_000"], &["0", "10_001"]),
    ];
    let folder = Folder::new();
    let wrap = |key: &str, value: &str, is_host: bool| {
        let line = format!("{key} = {value}");
        let ready = "[host]\nready = 1000\n";
        if is_host {
            host(&line)
        } else {
            format!("{ready}{}", function(&line))
        }
    };
    for (ranges, is_host) in [(on_host, true), (in_function, false)] {
        for (key, good, bad) in ranges {
            for value in *good {
                folder.ok(&wrap(key, value, is_host));
            }
            for value in *bad {
                let problems = folder.problems(&wrap(key, value, is_host));
                assert_eq!(problems.len(), 1, "{key} = {value}: {problems:?}");
                let shown = value.replace('_', "");
                assert!(
                    problems[0].contains(&format!("{key}: {shown}: ")),
                    "{key} = {value}: {problems:?}"
                );
            }
        }
    }
}

#[test]
fn the_command_line_wins_over_the_manifest() {
    let mut folder = Folder::new();
    folder.overrides = Overrides {
        http: Some("127.0.0.1:1".parse().unwrap()),
        admin: Some("127.0.0.1:2".parse().unwrap()),
        metrics: Some("127.0.0.1:3".parse().unwrap()),
        drain_timeout: Some(Duration::from_secs(4)),
        signatures: Signatures::Waived,
    };
    let manifest = "[host]\nhttp = \"127.0.0.1:11\"\nadmin = \"127.0.0.1:12\"\n\
                    metrics = \"127.0.0.1:13\"\ndrain-timeout = \"14s\"";
    for text in ["", manifest] {
        let host = folder.ok(text).host;
        assert_eq!(host.http.listen.port(), 1);
        assert_eq!(host.admin.listen.port(), 2);
        assert_eq!(host.admin.signatures, Signatures::Waived);
        assert_eq!(host.metrics.listen.unwrap().port(), 3);
        assert_eq!(host.drain_timeout, Duration::from_secs(4));
    }
}

#[test]
fn the_command_line_is_checked_too() {
    let mut folder = Folder::new();
    folder.overrides = Overrides {
        http: Some("127.0.0.1:9".parse().unwrap()),
        admin: Some("0.0.0.0:9".parse().unwrap()),
        metrics: Some("0.0.0.0:9".parse().unwrap()),
        drain_timeout: Some(Duration::from_secs(901)),
        ..Overrides::default()
    };
    assert_eq!(
        folder.problems(""),
        [
            "--admin: 0.0.0.0:9: the Lambda API is served on loopback only, since it has no TLS \
             yet; use 127.0.0.1 or [::1], and reach it from elsewhere through an SSH tunnel",
            "--admin: 0.0.0.0:9: the address of `http` too; give each a port of its own",
            "--metrics: 0.0.0.0:9: the address of `http` too; give each a port of its own",
            "--metrics: 0.0.0.0:9: the address of `admin` too; leave `metrics` out to serve \
             both there, or give it another port",
            "--drain-timeout: 901s: too large; allowed is 0 to 15m",
        ]
    );
}

#[test]
fn port_0_meets_nobody() {
    Folder::new().ok(&host("http = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\""));
}

#[test]
fn the_admin_address_stays_on_loopback() {
    assert_eq!(
        Folder::new().problems(&host("admin = \"0.0.0.0:3001\"")),
        [
            "dunlin.toml:2: host.admin: \"0.0.0.0:3001\": the Lambda API is served on loopback only, \
          since it has no TLS yet; use 127.0.0.1 or [::1], and reach it from elsewhere through an \
          SSH tunnel"
        ]
    );
}

/// Manifests with one fault each, and the whole message.
#[test]
fn a_problem_names_the_thing_the_value_and_the_remedy() {
    let folder = Folder::new();
    folder.file("core.wasm", b"\0asm\x01\0\0\0rest");
    folder.file("cut.wasm", b"\0asm");
    folder.file("half.wasm", &component("dunlin:event/http@0.1.0")[..20]);
    folder.file("other.wasm", &component("acme:other/door@1.0.0"));
    folder.file("text.wasm", b"(component)");
    folder.file("binary", b"\xff\xfe");
    let table: &[(&str, &str)] = &[
        // The file itself.
        ("[host\n", "1: TOML syntax: "),
        // Units and types.
        (
            &host("memory-budget = \"4\""),
            "2: host.memory-budget: \"4\": a number without a unit; write a size such as `64MiB`",
        ),
        (
            &host("memory-budget = 4096"),
            "2: host.memory-budget: 4096: a number without a unit; write a size such as `64MiB`",
        ),
        (
            &function("memory = \"128Mi\""),
            "3: function.f.memory: \"128Mi\": the unit `Mi` is unknown; use B, KiB, MiB, GiB, KB, \
             MB or GB",
        ),
        (
            &function("timeout = true"),
            "3: function.f.timeout: true: a boolean; write a duration such as `250ms` or `3s`",
        ),
        (
            &function("timeout = \"soon\""),
            "3: function.f.timeout: \"soon\": it does not begin with a whole number; write a \
             duration such as `250ms` or `3s`",
        ),
        (
            &function("timeout = \"16m\""),
            "3: function.f.timeout: \"16m\": too large; allowed is 1ms to 15m",
        ),
        (
            &host("concurrency = \"10\""),
            "2: host.concurrency: \"10\": a string; write a whole number, 1 to 10000",
        ),
        (
            &function("fuel = \"lots\""),
            "3: function.f.fuel: \"lots\": unknown word; write `\"auto\"`, `\"off\"` or a number \
             of units, 1 or more",
        ),
        (
            &function("isolation = \"shared\""),
            "3: function.f.isolation: \"shared\": unknown word; use `fresh`, `reuse` or `concurrent`",
        ),
        (
            &host("http = \"3000\""),
            "2: host.http: \"3000\": no address; write an IP address and a port, such as \
             `127.0.0.1:3000` or `[::1]:3000`",
        ),
        (
            &host("account = \"1234\""),
            "2: host.account: \"1234\": no account; write 12 digits, as in an ARN",
        ),
        // Keys.
        (
            &host("drain-timout = \"3s\""),
            "2: host.drain-timout: unknown key; did you mean `drain-timeout`?",
        ),
        (
            "[functions.f]",
            "1: functions: unknown key; did you mean `function`?",
        ),
        (
            &function("handler = \"x\""),
            "3: function.f.handler: unknown key; the keys here are `source`, `component`, \
             `memory`, `timeout`, `fuel`, `request-limit`, `response-limit`, `log-limit`, \
             `isolation`, `reserved-concurrency`, `provisioned`, `weight`, `arguments`, \
             `environment`, `config`, `secrets`, `mount`, `scratch`, `egress`, `sockets`, \
             `http`, `sends-to`, `invokes`, `async`, `queue`, `schedule` and `key-value`",
        ),
        // Names.
        (
            "[function.\"a b\"]\ncomponent = \"ok.wasm\"",
            "1: function.\"a b\": cannot name a function; use 1 to 64 letters, digits, `-` and `_`",
        ),
        (
            "[function]\nf = 1",
            "2: function.f: no table but of type integer; write `[function.f]` or `{ KEY = … }`",
        ),
        // Components.
        (
            "[function.f]",
            "1: function.f: neither `source` nor `component` is given; name the folder of a cargo \
             package as `source`, or a `.wasm` file as `component`",
        ),
        (
            &function("source = \"pkg\""),
            "2: function.f.component: \"ok.wasm\": both `source` and `component` are given; leave \
             one of them out",
        ),
        (
            "[function.f]\nsource = \"none\"",
            "2: function.f.source: \"none\": no cargo package there: `Cargo.toml` is missing; name \
             the folder of one, relative to the manifest",
        ),
        (
            "[function.f]\ncomponent = \"none.wasm\"",
            "2: function.f.component: \"none.wasm\": no such file; correct the path, or build it \
             with `cargo build --target wasm32-wasip2`, or give its package as `source`",
        ),
        (
            "[function.f]\ncomponent = \"pkg\"",
            "2: function.f.component: \"pkg\": not a file; correct the path, or build it with \
             `cargo build --target wasm32-wasip2`, or give its package as `source`",
        ),
        (
            "[function.f]\ncomponent = \"core.wasm\"",
            "2: function.f.component: \"core.wasm\": a core WebAssembly module, no component; \
             build it with `cargo build --target wasm32-wasip2`, or give its package as `source`, \
             or wrap it with `wasm-tools component new`",
        ),
        (
            "[function.f]\ncomponent = \"cut.wasm\"",
            "2: function.f.component: \"cut.wasm\": cut short after 4 bytes; build it with `cargo \
             build --target wasm32-wasip2`, or give its package as `source`",
        ),
        (
            "[function.f]\ncomponent = \"text.wasm\"",
            "2: function.f.component: \"text.wasm\": no WebAssembly component: it begins \
             with \"(compone\"; build it with `cargo build --target wasm32-wasip2`, or give its package \
             as `source`",
        ),
        (
            "[function.f]\ncomponent = \"half.wasm\"",
            "2: function.f.component: \"half.wasm\": cut short after 20 bytes; build it with `cargo \
             build --target wasm32-wasip2`, or give its package as `source`",
        ),
        (
            "[function.f]\ncomponent = \"other.wasm\"",
            "2: function.f.component: \"other.wasm\": it exports no handler that Dunlin knows; what \
             it exports: `acme:other/door@1.0.0`; export one of `dunlin:event/http@0.1.0`, \
             `dunlin:event/invoke@0.1.0`, `dunlin:event/schedule@0.1.0`, \
             `dunlin:event/queue@0.1.0`, or `wasi:http/handler`, `wasi:http/incoming-handler` or \
             `wasi:cli/run`",
        ),
        // The host's ceilings.
        (
            &format!(
                "{}[host]\nmax-memory = \"128MiB\"",
                function("memory = \"129MiB\"")
            ),
            "3: function.f.memory: \"129MiB\": above the host's `max-memory` of 128MiB; lower it, \
             or raise `max-memory`",
        ),
        (
            &format!("{}[host]\nmax-memory = \"64MiB\"", function("")),
            "1: function.f: `memory` is 128MiB by default, above the host's `max-memory` of \
             64MiB; set `memory`, or raise `max-memory`",
        ),
        (
            "host.concurrency = 10\n[function.a]\ncomponent = \"ok.wasm\"\n\
             reserved-concurrency = 6\n[function.b]\ncomponent = \"ok.wasm\"\n\
             reserved-concurrency = 5",
            "7: function.b.reserved-concurrency: 5: all `reserved-concurrency` together (a 6, b 5) \
             are 11, more than the host's `concurrency` of 10; lower one, or raise `concurrency`",
        ),
        (
            "host.concurrency = 10\n[function.a]\ncomponent = \"ok.wasm\"\n\
             reserved-concurrency = 10\n[function.b]\ncomponent = \"ok.wasm\"",
            "4: function.a.reserved-concurrency: 10: nothing of the host's `concurrency` of 10 is \
             left for function `b`, which reserves none; lower it, or raise `concurrency`",
        ),
        (
            &format!("host.ready = 1\n{}", function("provisioned = 2")),
            "4: function.f.provisioned: 2: all `provisioned` together (f 2) are 2, more than the \
             host's `ready` of 1; lower one, or raise `ready`",
        ),
        // Environment and secrets.
        (
            &function("environment = { A-B = \"x\" }"),
            "3: function.f.environment.A-B: cannot name a variable or secret; use 2 or more \
             letters, digits and `_`, with a letter first",
        ),
        (
            &function("environment = { _HANDLER = \"x\" }"),
            "3: function.f.environment._HANDLER: a name that Lambda reserves; choose another",
        ),
        (
            &function("environment = { AWS_REGION = \"x\" }"),
            "3: function.f.environment.AWS_REGION: a name that Lambda reserves; choose another",
        ),
        (
            &function("environment = { PORT = 80 }"),
            "3: function.f.environment.PORT: 80: of type integer, but a variable is a text; put \
             it in quotes, or write `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
        ),
        (
            &function("environment = { AB = { env = \"NONE\" } }"),
            "3: function.f.environment.AB.env: \"NONE\": no such variable in the host's \
             environment; set it before `dunlin` starts",
        ),
        (
            &function("environment = { AB = \"a\\u0000b\" }"),
            "3: function.f.environment.AB: a NUL byte in the value; remove it",
        ),
        (
            &function("secrets = { AB = \"literal\" }"),
            "3: function.f.secrets.AB: a secret's value does not belong in the manifest; write \
             `{ file = \"PATH\" }` or `{ env = \"NAME\" }`, and change the secret if others could \
             read it here",
        ),
        (
            &function("secrets = { AB = { file = \"none\" } }"),
            "3: function.f.secrets.AB.file: \"none\": no such file; create it, or correct the \
             path, which counts from the manifest's folder",
        ),
        (
            &function("secrets = { AB = { file = \"binary\" } }"),
            "3: function.f.secrets.AB.file: \"binary\": the file is not UTF-8; encode it, for \
             example as base64",
        ),
        (
            &function("secrets = { AB = { file = \"a\", env = \"B\" } }"),
            "3: function.f.secrets.AB: both `env` and `file` are given; leave one of them out",
        ),
        (
            &function("secrets = { AB = { } }"),
            "3: function.f.secrets.AB: neither `env` nor `file` is given; write \
             `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
        ),
        (
            &function("environment = { AB = \"x\" }\nsecrets = { AB = { env = \"KEY\" } }"),
            "4: function.f.secrets.AB: an environment variable of that name exists too; rename \
             one, or leave it out of `environment`",
        ),
        // Routes.
        (
            &function("http = { path = \"/\" }"),
            "3: function.f.http: a table; write `[[function.f.http]]`, once for each",
        ),
        (
            &function("[[function.f.http]]\nmethod = \"GET\""),
            "3: function.f.http[0]: `path` is missing; write a pattern such as \
             `path = \"/users/{id}\"`",
        ),
        (
            &function("[[function.f.http]]\npath = \"users\""),
            "4: function.f.http[0].path: \"users\": it does not begin with `/`; write a path such \
             as `/users/{id}`",
        ),
        (
            &function("[[function.f.http]]\npath = \"/users/:id\""),
            "4: function.f.http[0].path: \"/users/:id\": a parameter in another syntax; write \
             `/users/{id}` for a part, `/files/{*rest}` for all that follows",
        ),
        (
            &function("[[function.f.http]]\npath = \"/{a}{b}\""),
            "4: function.f.http[0].path: \"/{a}{b}\": two parameters in one part of the path; \
             write `/users/{id}` for a part, `/files/{*rest}` for all that follows",
        ),
        (
            &function("[[function.f.http]]\npath = \"/{*a}/b\""),
            "4: function.f.http[0].path: \"/{*a}/b\": a parameter `{*…}` before the end of the \
             path; write `/users/{id}` for a part, `/files/{*rest}` for all that follows",
        ),
        (
            &function("[[function.f.http]]\npath = \"/a?b=c\""),
            "4: function.f.http[0].path: \"/a?b=c\": a query or fragment; leave it out: a route \
             matches the path only",
        ),
        (
            &function("[[function.f.http]]\npath = \"/\"\nmethod = \"get\""),
            "5: function.f.http[0].method: \"get\": the method `get` is unknown; use GET, HEAD, \
             POST, PUT, PATCH, DELETE, OPTIONS, or leave `method` out for every one",
        ),
        (
            &function("[[function.f.http]]\npath = \"/\"\nmethod = [\"GET\", \"GET\"]"),
            "5: function.f.http[0].method: the method `GET` stands twice; remove one",
        ),
        (
            &function("[[function.f.http]]\npath = \"/\"\nhost = \"a.example:80\""),
            "5: function.f.http[0].host: \"a.example:80\": a host with a port; write a name such \
             as `api.example.com`, or leave `host` out for every one",
        ),
    ];
    for (text, expected) in table {
        let problems = folder.problems(text);
        let expected = format!("dunlin.toml:{expected}");
        match problems.as_slice() {
            [one] if expected.ends_with(": ") => assert!(one.starts_with(&expected), "{one}"),
            [one] => assert_eq!(*one, expected, "of\n{text}"),
            _ => panic!("{problems:#?} of\n{text}"),
        }
    }
}

#[test]
fn routes_in_conflict_are_both_named() {
    let routes = |first: &str, second: &str| {
        format!(
            "[function.a]\ncomponent = \"ok.wasm\"\n[[function.a.http]]\n{first}\n\
             [function.b]\ncomponent = \"ok.wasm\"\n[[function.b.http]]\n{second}\n"
        )
    };
    let folder = Folder::new();
    for (first, second) in [
        ("path = \"/a\"", "path = \"/b\""),
        ("path = \"/a/{id}\"", "path = \"/a/b\""),
        ("path = \"/{*rest}\"", "path = \"/b\""),
        (
            "path = \"/a\"\nmethod = \"GET\"",
            "path = \"/a\"\nmethod = \"POST\"",
        ),
        ("path = \"/a\"\nhost = \"x\"", "path = \"/a\"\nhost = \"y\""),
        ("path = \"/a\"", "path = \"/a\"\nhost = \"y\""),
    ] {
        folder.ok(&routes(first, second));
    }
    let conflicts = |first: &str, second: &str, message: &str| {
        assert_eq!(folder.problems(&routes(first, second)), [message]);
    };
    conflicts(
        "path = \"/users/{id}\"",
        "path = \"/users/{name}\"",
        "dunlin.toml:8: function.b.http[0].path: \"/users/{name}\": every method /users/{name} of \
         function `b` conflicts with every method /users/{id} of function `a` (dunlin.toml:4); \
         change the host, the method or the path of one",
    );
    conflicts(
        "host = \"Api.example\"\nmethod = [\"GET\", \"PUT\"]\npath = \"/a\"",
        "path = \"/a\"\nhost = \"api.example\"",
        "dunlin.toml:10: function.b.http[0].path: \"/a\": every method api.example/a of function \
         `b` conflicts with GET api.example/a of function `a` (dunlin.toml:6); change the host, \
         the method or the path of one",
    );
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"
[host]
htpp = "127.0.0.1:3000"
admin = "10.0.0.1:3001"
concurrency = 0

[function.a]
component = "none.wasm"
memroy = "1MiB"
timeout = 3
secrets = { DB = "hunter2", KEY_B = { env = "NOT_SET" } }

[function."b!"]
weight = 0

[[function."b!".http]]
pth = "/"

[hots]
"#;
    let keys: Vec<String> = Folder::new()
        .problems(text)
        .iter()
        .map(|line| line.splitn(4, ": ").take(2).collect::<Vec<_>>().join(": "))
        .collect();
    assert_eq!(
        keys,
        [
            "dunlin.toml:3: host.htpp",
            "dunlin.toml:4: host.admin",
            "dunlin.toml:5: host.concurrency",
            "dunlin.toml:8: function.a.component",
            "dunlin.toml:9: function.a.memroy",
            "dunlin.toml:10: function.a.timeout",
            "dunlin.toml:11: function.a.secrets.DB",
            "dunlin.toml:11: function.a.secrets.KEY_B.env",
            "dunlin.toml:13: function.\"b!\"",
            "dunlin.toml:13: function.\"b!\"",
            "dunlin.toml:14: function.\"b!\".weight",
            "dunlin.toml:16: function.\"b!\".http[0]",
            "dunlin.toml:17: function.\"b!\".http[0].pth",
            "dunlin.toml:19: hots",
        ]
    );
}

#[test]
fn every_line_with_a_syntax_error_is_reported() {
    let problems = Folder::new().problems("[host]\nready = \nconcurrency = = 1\n");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("dunlin.toml:2: TOML syntax: "),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with("dunlin.toml:3: TOML syntax: "),
        "{problems:?}"
    );
}

#[test]
fn a_manifest_that_cannot_be_read_is_a_problem_too() {
    let folder = Folder::new();
    let load = |path: &Path| {
        let sources = Sources {
            overrides: &folder.overrides,
            variables: &folder.variables,
            values: Values::Read,
        };
        Config::load(path, sources).unwrap_err().to_string()
    };
    assert_eq!(
        load(Path::new("no/dunlin.toml")),
        "no/dunlin.toml:1: manifest: no such file; name the manifest or its folder, or make one \
         with `dunlin new`"
    );
    folder.file("latin1.toml", b"[host]\n# caf\xe9\n");
    assert!(
        load(&folder.path("latin1.toml"))
            .ends_with("latin1.toml:2: manifest: not UTF-8; save it as UTF-8")
    );
}

#[test]
fn a_folder_means_the_manifest_in_it() {
    let folder = Folder::new();
    assert_eq!(manifest_path(folder.dir.path()), folder.path(MANIFEST));
    assert_eq!(manifest_path(Path::new(".")), Path::new(MANIFEST));
    assert_eq!(
        manifest_path(Path::new("x/other.toml")),
        Path::new("x/other.toml")
    );
}
