//! Signing as AWS's own SDK does: its crate, so that two implementations must
//! agree.

use std::path::Path;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;

/// A key, and what its signatures say besides.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) time: Option<SystemTime>,
    pub(crate) service: &'static str,
    pub(crate) token: Option<String>,
}

impl Key {
    /// Reads an AWS credentials file.
    #[track_caller]
    pub(crate) fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).expect("the host has written its key");
        let value = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.split_once('=').filter(|(key, _)| key.trim() == name));
            line.unwrap_or_else(|| panic!("no {name} in {}", file.display()))
                .1
                .trim()
                .to_owned()
        };
        Self {
            id: value("aws_access_key_id"),
            secret: value("aws_secret_access_key"),
            time: None,
            service: "lambda",
            token: None,
        }
    }

    /// The headers that sign a request.
    pub(crate) fn sign(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<(String, String)> {
        let identity = Credentials::from_keys(&self.id, &self.secret, self.token.clone()).into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("edge-1")
            .name(self.service)
            .time(self.time.unwrap_or_else(SystemTime::now))
            .settings(SigningSettings::default())
            .build()
            .expect("all is given")
            .into();
        let authority = headers
            .iter()
            .find(|(name, _)| *name == "host")
            .expect("a host is signed")
            .1;
        let request = SignableRequest::new(
            method,
            format!("http://{authority}{target}"),
            headers.iter().copied(),
            SignableBody::Bytes(body),
        )
        .expect("a request of the test's can be signed");
        let (instructions, _) = sign(request, &params).expect("it is signed").into_parts();
        let (headers, query) = instructions.into_parts();
        assert!(query.is_empty());
        headers
            .into_iter()
            .map(|header| (header.name().to_owned(), header.value().to_owned()))
            .collect()
    }
}
