//! The signer of AWS's own Rust SDK and ours must agree, and our verifier must accept both.

use std::time::SystemTime;

use aws_credential_types::Credentials as AwsCredentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use http::Request;

use super::*;

const REQUESTS: usize = 200;

#[test]
fn generated_requests_are_signed_alike() {
    let mut random = Random(0xd0_0411);
    for index in 0..REQUESTS {
        let (request, body) = generate(&mut random);
        let theirs = signed_by_aws(request.clone(), &body, random.below(2) == 0);
        verify(&theirs, &body).unwrap_or_else(|error| panic!("{index}: {error}\n{theirs:#?}"));

        let mut ours = theirs.clone();
        super::sign(&mut ours, &body);
        assert_eq!(
            ours.headers[AUTHORIZATION], theirs.headers[AUTHORIZATION],
            "{index}: {theirs:#?}"
        );

        let mut more = body.clone();
        more.push(b'x');
        verify(&theirs, &more).expect_err("another body");
    }
}

fn signed_by_aws(mut request: Request<()>, body: &[u8], declare: bool) -> request::Parts {
    let key = key();
    let identity =
        AwsCredentials::from_keys(key.access_key_id(), key.secret_access_key(), None).into();
    let mut settings = SigningSettings::default();
    if declare {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("edge-1")
        .name("lambda")
        .time(SystemTime::from(NOW))
        .settings(settings)
        .build()
        .expect("all given")
        .into();
    let headers = request.headers().iter().map(|(name, value)| {
        let value = value.to_str().expect("the generator makes ASCII");
        (name.as_str(), value)
    });
    let uri = format!("http://127.0.0.1:7100{}", request.uri());
    let signable = SignableRequest::new(
        request.method().as_str(),
        uri,
        headers,
        SignableBody::Bytes(body),
    )
    .expect("a valid request");
    let (instructions, _) = sign(signable, &params).expect("signed").into_parts();
    instructions.apply_to_request_http1x(&mut request);
    request.into_parts().0
}

fn generate(random: &mut Random) -> (Request<()>, Vec<u8>) {
    let mut target = String::new();
    for _ in 0..=random.below(5) {
        target.push('/');
        target.push_str(random.pick(&[
            "2015-03-31",
            "functions",
            "my-fn%3Aprod",
            "arn%3Aaws%3Alambda%3Aedge-1%3A123456789012%3Afunction%3Af%3A%24LATEST",
            "%e2%82%ac",
            "a+b",
            "@:!$&'()*,;=",
            "~-_.",
            ".",
            "..",
            "",
            "%2F",
            "%20",
        ]));
    }
    for index in 0..random.below(6) {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(random.pick(&["Qualifier", "tagKeys", "a%20b", "%C3%BC", "B", "a-b", ""]));
        target.push_str(random.pick(&[
            "",
            "=",
            "=x+y",
            "=%2B",
            "=%24LATEST",
            "=a=b",
            "=%e2%82%ac",
            "=%zz",
            "=~*'()",
        ]));
    }
    let mut builder = Request::builder()
        .method(random.pick(&["GET", "POST", "PUT", "DELETE"]))
        .uri(target)
        .header(HOST, "127.0.0.1:7100");
    for _ in 0..random.below(5) {
        builder = builder.header(
            random.pick(&[
                "X-Amz-Log-Type",
                "content-type",
                "x-amz-client-context",
                "amz-sdk-request",
                "X-Amz-Meta-A",
                "accept",
            ]),
            random.pick(&[
                "Tail",
                "a   b",
                "  a, b  ",
                "\"x  y\"",
                "",
                "eyJhIjoxfQ==",
                "a;b=c",
            ]),
        );
    }
    let body = (0..random.below(200))
        .map(|_| random.next() as u8)
        .collect();
    (builder.body(()).expect("valid"), body)
}
