use dunlin_sdk::Error;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Event {
    name: String,
}

#[derive(Serialize)]
struct Answer {
    message: String,
}

#[dunlin_sdk::invoke]
fn handle(event: Event) -> Result<Answer, Error> {
    if event.name.is_empty() {
        return Err("the name is empty".into());
    }
    let message = format!("Hello, {}!", event.name);
    Ok(Answer { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_by_name() {
        let name = "ada".to_owned();
        assert_eq!(handle(Event { name }).unwrap().message, "Hello, ada!");
    }
}
