//! Queues that the host keeps for itself.

use super::*;

fn own() -> QueueName {
    QueueName::internal("async", "thumbnail")
}

#[test]
fn nobody_else_can_name_them() {
    assert_eq!(own().as_str(), "@async:thumbnail");
    assert!(own().is_internal() && !name("q").is_internal());
    for text in ["@async:thumbnail", "@q", "@"] {
        assert!(QueueName::new(text).is_err(), "{text}");
        let json = format!("\"{text}\"");
        assert!(serde_json::from_str::<QueueName>(&json).is_err(), "{text}");
    }
    assert_eq!(QueueName::stored("@async:thumbnail"), Ok(own()));
    assert!(QueueName::stored("no name").is_err());
}

#[tokio::test]
async fn they_are_read_back_from_the_store_also_as_the_source_of_a_dead_letter() {
    let mut host = with(QueueSettings::default(), "q").await;
    let queues = vec![(own(), QueueSettings::default())];
    host.queues().put(queues, Owner::Host).await.unwrap();
    let sent = host.queues().send(own(), vec![NewMessage::of("x")]).await;
    sent.unwrap().remove(0).unwrap();
    host.restart();
    let info = host.queues().info(own()).await.unwrap();
    assert_eq!((&info.name, info.owner), (&own(), Owner::Host));
    let all = host.queues().list().await.unwrap();
    assert!(all.iter().any(|info| info.name == own()), "{all:?}");

    let got = host.queues().receive(own(), 1, None, Held::Host);
    let got = got.await.unwrap();
    let bury = Settlement::Bury {
        queue: name("dead"),
        reason: "no".into(),
        attributes: BTreeMap::new(),
    };
    settle_all(&host, &got, bury).await;
    host.restart();
    let letters = host.queues().peek(name("dead"), 1).await.unwrap();
    assert_eq!(letters[0].dead.clone().unwrap().source, own());
    assert_eq!(host.queues().redrive(name("dead"), 1).await, Ok(1));
    assert_eq!(host.queues().depth(own()).await.unwrap().messages, 1);
}
