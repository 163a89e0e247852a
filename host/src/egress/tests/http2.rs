//! Connections of HTTP/2.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::uploads::{endless, hears_soon};
use super::*;

/// A server over TLS, and the certificate to trust.
pub(super) async fn serve<F: Future<Output = Full<Bytes>> + Send + 'static>(
    answer: impl Fn(Incoming) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, CertificateDer<'static>) {
    serve_and_tell(answer, || ()).await
}

/// The same, and each time that a connection has ended it is told.
async fn serve_and_tell<F: Future<Output = Full<Bytes>> + Send + 'static>(
    answer: impl Fn(Incoming) -> F + Clone + Send + Sync + 'static,
    ended: impl Fn() + Clone + Send + 'static,
) -> (SocketAddr, CertificateDer<'static>) {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = own.cert.der().clone();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth();
    let mut config = config
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (address, _) = server(move |stream| {
        let (acceptor, answer, ended) = (acceptor.clone(), answer.clone(), ended.clone());
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(request.into_body());
                async move { Ok::<_, Infallible>(http::Response::new(answer.await)) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // However it ends.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            ended();
        }
    })
    .await;
    (address, certificate)
}

fn https(certificate: CertificateDer<'static>, limits: Egress) -> Bench {
    let rules = ["http", "https"].map(|scheme| format!("{scheme}://127.0.0.0/8:*"));
    let policy = Egress {
        rules: policy(&rules).rules,
        ..limits
    };
    let roots = Roots::new(vec![certificate], Handle::current());
    bench_with(policy, Told::new(&[&[]]), roots)
}

#[tokio::test]
async fn who_waits_is_told_when_a_connection_is_used_no_more() {
    let (release, gate) = tokio::sync::watch::channel(());
    let (begun, mut begins) = mpsc::channel(1);
    let (slow, certificate) = serve(move |_| {
        let (mut gate, begun) = (gate.clone(), begun.clone());
        async move {
            begun.send(()).await.unwrap();
            gate.changed().await.unwrap();
            "slow".into()
        }
    })
    .await;
    let (other, _) = server(answers).await;
    let limits = Egress {
        connections: 1,
        requests: 2,
        ..Egress::default()
    };
    let bench = https(certificate, limits);
    let [slow, other] = [format!("https://{slow}/"), format!("http://{other}/")];
    let slow = bench.text(get(&slow));
    let other = async {
        begins.recv().await.unwrap();
        bench.text(get(&other)).await
    };
    let released = async {
        // With its turn, the other one has looked for a connection in vain.
        while bench.client.free_requests() > 0 {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
    };
    let (slow, other, ()) = tokio::join!(slow, other, released);
    assert_eq!(
        (slow.unwrap(), other.unwrap()),
        ("slow".into(), "ok".into())
    );
}

#[tokio::test]
async fn a_body_that_is_read_on_after_the_answer_is_reset() {
    let (ended, mut ends) = mpsc::channel(10);
    let (address, certificate) = serve(move |mut body| {
        let ended = ended.clone();
        tokio::spawn(async move {
            while let Some(Ok(_)) = body.frame().await {}
            ended.send(()).await.unwrap();
        });
        async { "early".into() }
    })
    .await;
    let limits = Egress {
        requests: 1,
        ..Egress::default()
    };
    let bench = https(certificate, limits);
    let request = Request::post(format!("https://{address}/"));
    let request = request.body(endless()).unwrap();
    assert_eq!(bench.text(request).await.unwrap(), "early");
    assert_eq!(bench.client.free_requests(), 0);
    hears_soon(&mut ends).await;
    let begun = Instant::now();
    while bench.client.free_requests() == 0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_ends_with_its_connection() {
    let (ended, mut ends) = mpsc::channel(10);
    // Kept, so that its stream is neither reset nor read.
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (address, certificate) = serve_and_tell(
        move |body| {
            kept.lock().unwrap().push(body);
            async { "early".into() }
        },
        move || ended.try_send(()).unwrap(),
    )
    .await;
    let limits = Egress {
        connections: 1,
        requests: 1,
        connect_timeout: PATIENCE,
        ..Egress::default()
    };
    let bench = https(certificate, limits);
    let request = Request::post(format!("https://{address}/"));
    let request = request.body(endless()).unwrap();
    assert_eq!(bench.text(request).await.unwrap(), "early");
    // The next one waits for its turn.
    let (other, _) = server(answers).await;
    let next = bench.text(get(&format!("http://{other}/")));
    let (next, ()) = tokio::join!(next, hears_soon(&mut ends));
    assert_eq!(next.unwrap(), "ok");
}
