//! The same program as `program` over `wasi:cli` 0.3: what it writes goes through streams,
//! also after it has returned.

use std::time::Duration;

use serde_json::{Value, json};
use wasip3::cli::{environment, exit, stderr, stdin, stdout};
use wasip3::clocks::monotonic_clock;
use wasip3::{wit_bindgen, wit_stream};

wasip3::cli::command::export!(Program);

struct Program;

async fn read() -> Vec<u8> {
    let (input, ended) = stdin::read_via_stream();
    let event = input.collect().await;
    ended.await.expect("stdin ends well");
    event
}

/// Writes it, and does not wait until it is read.
fn write(text: impl Into<Vec<u8>>) {
    let (mut sender, output) = wit_stream::new();
    let text = text.into();
    wit_bindgen::spawn_local(async move {
        let _ = stdout::write_via_stream(output).await;
    });
    wit_bindgen::spawn_local(async move {
        sender.write_all(text).await;
    });
}

/// Writes it to the log, and waits until it is there.
async fn note(text: String) {
    let (mut sender, output) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        sender.write_all(text.into_bytes()).await;
    });
    let _ = stderr::write_via_stream(output).await;
}

async fn sleep(time: Duration) {
    monotonic_clock::wait_for(time.as_nanos() as u64).await;
}

impl wasip3::exports::cli::run::Guest for Program {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let event = read().await;
        note(format!("got {} bytes\n", event.len())).await;
        // The event may say something else.
        let asked: Option<Value> = serde_json::from_slice(&event).ok();
        let asked = asked.as_ref().and_then(|event| event.get("do")?.as_str());
        match asked
            .or(arguments.get(1).map(String::as_str))
            .unwrap_or("echo")
        {
            "echo" => write(event),
            "describe" => {
                let environment = environment::get_environment();
                let greeting = environment.iter().find(|(name, _)| name == "GREETING");
                let greeting = greeting.map_or("", |(_, value)| value);
                write(json!({ "arguments": arguments, "greeting": greeting }).to_string());
            }
            "text" => write("not JSON\n"),
            // After it has returned, too, it is one run.
            "later" => {
                wit_bindgen::spawn_local(async {
                    sleep(Duration::from_millis(100)).await;
                    write("\"late\"");
                });
            }
            "fail" => {
                write("half an answer");
                return Err(());
            }
            "exit-zero" => {
                let (mut sender, output) = wit_stream::new();
                let written = stdout::write_via_stream(output);
                sender.write_all(b"\"done\"".to_vec()).await;
                drop(sender);
                let _ = written.await;
                exit::exit(Ok(()));
            }
            "exit-seven" => exit::exit(Err(())),
            "panic" => panic!("as it is told to"),
            "spin" => loop {
                std::hint::black_box(&event);
            },
            "wait" => sleep(Duration::from_secs(3600)).await,
            "flood" => write(vec![b'x'; 8 << 20]),
            other => panic!("no such thing: {other}"),
        }
        Ok(())
    }
}
