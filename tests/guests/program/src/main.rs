//! A program that nobody wrote for the host: it reads stdin, writes stdout and stderr,
//! and ends as its first argument says.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let mut event = String::new();
    std::io::stdin().read_to_string(&mut event).unwrap();
    eprintln!("got {} bytes", event.len());
    // The event may say something else.
    let asked: Option<serde_json::Value> = serde_json::from_str(&event).ok();
    let asked = asked.as_ref().and_then(|event| event.get("do")?.as_str());
    match asked
        .or(arguments.get(1).map(String::as_str))
        .unwrap_or("echo")
    {
        "echo" => print!("{event}"),
        "describe" => {
            let home = std::env::var("GREETING").unwrap_or_default();
            let described = serde_json::json!({ "arguments": arguments, "greeting": home });
            print!("{described}");
        }
        "text" => println!("not JSON"),
        "fail" => {
            print!("half an answer");
            return ExitCode::FAILURE;
        }
        "exit-zero" => {
            print!("\"done\"");
            std::process::exit(0);
        }
        "exit-seven" => std::process::exit(7),
        "panic" => panic!("as it is told to"),
        "spin" => loop {
            std::hint::black_box(&event);
        },
        "flood" => {
            let piece = vec![b'x'; 64 << 10];
            for _ in 0..200 {
                std::io::stdout().write_all(&piece).unwrap();
            }
        }
        other => panic!("no such thing: {other}"),
    }
    ExitCode::SUCCESS
}
