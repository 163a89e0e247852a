//! Bodies that are still on their way when their answer is read.

use super::*;

/// A body that goes on for as long as somebody takes it.
pub(super) fn endless() -> Outgoing {
    let (parts, body) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        let part = Bytes::from(vec![b'x'; 16 << 10]);
        while parts.send(part.clone()).await.is_ok() {}
    });
    Outgoing::new(streamed(body), Alive::default())
}

/// Hears that in much less time than a connection may rest for.
pub(super) async fn hears_soon(what: &mut mpsc::Receiver<()>) {
    let heard = tokio::time::timeout(super::pool::REST / 2, what.recv()).await;
    heard.expect("in time").expect("it is said");
}

#[tokio::test]
async fn what_is_answered_early_is_not_sent_for_ever() {
    let (ended, mut ends) = mpsc::channel(10);
    let (address, _) = server(move |mut stream| {
        let ended = ended.clone();
        async move {
            if head(&mut stream).await.unwrap().starts_with("GET") {
                stream.write_all(OK).await.unwrap();
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            ended.send(()).await.unwrap();
        }
    })
    .await;
    let bench = bench(Egress {
        connections: 1,
        requests: 2,
        connect_timeout: PATIENCE,
        ..loopback()
    });
    let url = format!("http://{address}/");
    let request = Request::post(&url).body(endless()).unwrap();
    assert_eq!(bench.text(request).await.unwrap(), "");
    // Its request is under way as long as it is.
    assert_eq!(bench.client.free_requests(), 1);
    let next = bench.text(get(&url));
    let (next, ()) = tokio::join!(next, hears_soon(&mut ends));
    assert_eq!(next.unwrap(), "ok");
    assert_eq!(bench.client.free_requests(), 2);
}
