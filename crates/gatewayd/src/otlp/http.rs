//! A POST to the collector, and what its answer means (OTLP 1, "OTLP/HTTP").

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::warn;

/// Bytes of an answer that are read.
const ANSWER: usize = 16 << 10;

/// Why a message was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It may be taken later.
    NotNow(String),
    /// It is not what the collector wants.
    Never(String),
}

/// Where to send.
#[derive(Debug)]
pub(super) struct Collector {
    address: String,
    /// Host and port; and the path before that of a signal.
    authority: String,
    path: String,
    patience: Duration,
}

impl Collector {
    /// `address` is `http://HOST:PORT`, and a path where there is one.
    pub(super) fn new(address: &str, patience: Duration) -> Self {
        let rest = address.strip_prefix("http://").unwrap_or(address);
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        Self { address: address.to_owned(), authority: authority.to_owned(), path: path.to_owned(), patience }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a message to the path of a signal, and waits for the answer as long as is fit.
    pub(super) async fn send(&self, signal: &str, message: Vec<u8>) -> Result<(), Refused> {
        let late = || Refused::NotNow(format!("no answer within {} s", self.patience.as_secs()));
        tokio::time::timeout(self.patience, self.post(signal, message)).await.map_err(|_| late())?
    }

    async fn post(&self, signal: &str, message: Vec<u8>) -> Result<(), Refused> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|e| Refused::NotNow(e.to_string()))?;
        let not_now = |e: hyper::Error| Refused::NotNow(e.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(not_now)?;
        // It ends with `sender`.
        let connection = tokio::spawn(connection);
        let request = Request::post(format!("{}{signal}", self.path))
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("simplon/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(message)))
            .map_err(|e| Refused::Never(e.to_string()))?;
        let answer = sender.send_request(request).await.map_err(not_now)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        connection.abort();
        judge(status, &body)
    }
}

/// The specification names the codes that call for another try.
fn judge(status: StatusCode, body: &[u8]) -> Result<(), Refused> {
    let said = String::from_utf8_lossy(body.get(..200).unwrap_or(body)).trim().to_owned();
    match status {
        status if status.is_success() => {
            let partial = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
            if let Some(why) = partial["partialSuccess"]["errorMessage"].as_str().filter(|why| !why.is_empty()) {
                warn!("the collector took a part: {why}");
            }
            Ok(())
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Refused::NotNow(format!("{status} {said}"))),
        status => Err(Refused::Never(format!("{status} {said}"))),
    }
}
