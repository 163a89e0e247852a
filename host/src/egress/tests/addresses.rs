//! Where requests may go.

use super::*;

#[tokio::test]
async fn what_the_list_does_not_name_is_not_even_looked_up() {
    let told = Told::new(&[&["127.0.0.1"]]);
    let bench = bench_of(
        policy(&["https://*.example.com".into()]),
        told.clone(),
        Vec::new(),
    );
    for url in [
        "http://a.example.com/",
        "https://example.com/",
        "https://a.example.com:8443/",
        "https://evil.net/",
    ] {
        let error = bench.error(get(url)).await;
        assert!(matches!(error, Error::Denied(_)), "{url}: {error}");
    }
    assert_eq!(told.asked(), 0);
    assert_eq!(bench.counted("denied"), 4);
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_reached_nowhere_it_may_not_be() {
    // Public when it is first asked for, inside when it is asked for again.
    let (address, accepted) = server(answers).await;
    let told = Told::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let rules = [
        format!("http://rebind.example:{}", address.port()),
        format!("http://127.0.0.1:{}", address.port()),
    ];
    let bench = bench_of(policy(&rules), told.clone(), Vec::new());
    let url = format!("http://rebind.example:{}/", address.port());
    assert_eq!(bench.text(get(&url)).await.unwrap(), "ok");
    // One look for one connection: the address that was checked is the one it goes to.
    assert_eq!((told.asked(), accepted.load(Ordering::Relaxed)), (1, 1));
    // On the connection that is there, the name is not asked for again.
    assert_eq!(bench.text(get(&url)).await.unwrap(), "ok");
    assert_eq!(told.asked(), 1);
    // A new one is checked anew.
    let other = bench_of(policy(&rules), told.clone(), Vec::new());
    let error = other.error(get(&url)).await;
    assert!(matches!(error, Error::AddressDenied(..)), "{error}");
    assert_eq!((told.asked(), accepted.load(Ordering::Relaxed)), (2, 1));
}

#[tokio::test]
async fn of_several_addresses_those_are_used_that_may_be() {
    let (address, accepted) = server(answers).await;
    let told = Told::new(&[&["10.0.0.1", "::1", "::ffff:127.0.0.1"]]);
    let bench = bench_of(loopback(), told, Vec::new());
    let url = format!("http://several.example:{}/", address.port());
    assert_eq!(bench.text(get(&url)).await.unwrap(), "ok");
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    let told = Told::new(&[&["10.0.0.1", "fd00:ec2::254", "64:ff9b::7f00:1"]]);
    let bench = bench_of(loopback(), told, Vec::new());
    let error = bench.error(get(&url)).await;
    assert!(matches!(error, Error::AddressDenied(..)), "{error}");
    let bench = bench_of(loopback(), Told::new(&[&[]]), Vec::new());
    assert!(matches!(bench.error(get(&url)).await, Error::Dns(_)));
}

#[tokio::test]
async fn of_a_name_with_very_many_addresses_the_first_are_tried() {
    let (address, accepted) = server(answers).await;
    // Nobody listens at the others.
    let mut all = vec!["127.0.0.2"; 15];
    all.push("127.0.0.1");
    let url = format!("http://many.example:{}/", address.port());
    let bench = bench_of(loopback(), Told::new(&[&all]), Vec::new());
    assert_eq!(bench.text(get(&url)).await.unwrap(), "ok");
    all.insert(0, "127.0.0.2");
    let bench = bench_of(loopback(), Told::new(&[&all]), Vec::new());
    let error = bench.error(get(&url)).await;
    assert!(matches!(error, Error::Connect(_)), "{error}");
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_hosts_own_addresses_are_never_reached() {
    let (address, accepted) = server(answers).await;
    let port = address.port();
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let rules = [
        format!("http://0.0.0.0/0:{port}"),
        format!("http://[::/0]:{port}"),
        format!("http://*:{port}"),
    ];
    let bench = bench_of(policy(&rules), Told::new(&[&["127.0.0.1"]]), vec![address]);
    for host in [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "self.example",
        "LOCALHOST.",
    ] {
        let url = format!("http://{host}:{port}/");
        let error = bench.error(get(&url)).await;
        assert!(matches!(error, Error::AddressDenied(..)), "{host}: {error}");
    }
    // Bound to all addresses, it is at each of them.
    let bench = bench_of(policy(&rules), Told::new(&[&["127.0.0.3"]]), vec![any]);
    for host in ["127.0.0.1", "127.0.0.2", "[::1]", "self.example"] {
        let url = format!("http://{host}:{port}/");
        let error = bench.error(get(&url)).await;
        assert!(matches!(error, Error::AddressDenied(..)), "{host}: {error}");
    }
    let is_own = |ip: &str| {
        bench
            .shared
            .own
            .include(SocketAddr::new(ip.parse().unwrap(), port))
    };
    // In other forms, and through a translator.
    assert!(is_own("::ffff:127.0.0.1") && is_own("64:ff9b::127.0.0.1"));
    // Another machine's.
    assert!(!is_own("192.0.2.1") && !is_own("2001:db8::1"));
    // Another port of this machine's.
    assert!(!bench.shared.own.include("127.0.0.1:1".parse().unwrap()));
    assert_eq!(accepted.load(Ordering::Relaxed), 0);
    // A name of the host in the header is only that.
    let other = bench_of(loopback(), Told::new(&[&["127.0.0.1"]]), vec![any]);
    let (elsewhere, accepted) = server(answers).await;
    let mut request = get(&format!("http://{elsewhere}/"));
    let host = HeaderValue::try_from(address.to_string()).unwrap();
    request.headers_mut().insert("host", host);
    assert_eq!(other.text(request).await.unwrap(), "ok");
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn before_the_host_listens_nothing_is_reached() {
    let (address, _) = server(answers).await;
    let (log, _writer) = Log::start(io::sink()).unwrap();
    let roots = Roots::new(Vec::new(), Handle::current());
    let shared = Arc::new(Shared::new(Told::new(&[&[]]), roots, 1, log));
    assert!(shared.own.include(address));
}
