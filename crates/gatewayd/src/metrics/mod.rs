//! Metrics over HTTP, in the text format 0.0.4 of Prometheus: `GET /metrics`.
//!
//! Every scrape asks the control loop for the status, as a client of the admin socket does, and writes it down. A
//! configured connection has its series also while it is down, and counters never go backwards while the gateway runs:
//! what SAs carried that are gone is in them. When the data path does not answer the scrape fails with 503: a gap is
//! better than a counter at zero.
//!
//! | module | what |
//! | --- | --- |
//! | `text` | the format |
//! | `families`, `routing` | which series there are |
//! | `process` | what Prometheus knows of every process |
//!
//! Bounds: [`CLIENTS`] connections at once, [`PATIENCE`] for each request, its head 8 KiB.

mod families;
mod process;
mod routing;
mod text;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::debug;

use crate::admin::{self, Answer, Asked};

pub(crate) use self::families::collect;
pub(crate) use self::text::{Family, Kind, Number};

#[cfg(test)]
pub(crate) use self::families::tests::status as status_of;

/// Connections that are served at once; more wait.
const CLIENTS: usize = 8;
/// How long a client may take for a request, and for the next one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD: usize = 8 << 10;
/// What the format is called.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A listening server; it ends when the value is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Server {
    /// Listens at `address` and answers with what `ask` says.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub(crate) async fn listen(address: SocketAddr, ask: mpsc::Sender<Asked>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let accepting = tokio::spawn(accept(listener, ask)).abort_handle();
        Ok(Self { address, accepting })
    }

    /// Where it was told to listen.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, ask: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let ask = ask.clone();
                tokio::spawn(async move {
                    serve(stream, ask).await;
                    drop(place);
                });
            }
            Err(e) => {
                // Out of file descriptors, most likely: it passes when a client goes.
                debug!("cannot take a client of the metrics: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, ask: mpsc::Sender<Asked>) {
    let answer = service_fn(move |request| {
        let ask = ask.clone();
        async move { Ok::<_, Infallible>(answer(&request, &ask).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD);
    if let Err(e) = http.serve_connection(TokioIo::new(stream), answer).await {
        debug!("a client of the metrics is gone: {e}");
    }
}

async fn answer(request: &Request<Incoming>, ask: &mpsc::Sender<Asked>) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match (request.uri().path(), is_read) {
        ("/metrics", true) => match status(ask).await {
            Some(status) => plain(StatusCode::OK, families::write(&status)),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the data path does not say what it counted\n".to_owned()),
        },
        ("/", true) => plain(StatusCode::OK, "simplon: the metrics are at /metrics\n".to_owned()),
        (_, true) => plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned()),
        (_, false) => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "the metrics can only be read\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

/// The status with all its counters; nothing when some are missing.
pub(crate) async fn status(ask: &mpsc::Sender<Asked>) -> Option<Box<gateway::status::Status>> {
    let (answer, answered) = oneshot::channel();
    ask.send(Asked { request: admin::Request::Status, answer, stream: None }).await.ok()?;
    match answered.await {
        Ok(Answer::Status { status }) => Some(status).filter(|status| status.gateway.data_path.is_some()),
        Ok(_) | Err(_) => None,
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::status::{DataPathCounters, Status};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A port that is free for the moment.
    fn free() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// What a server whose data path answers, or not, says to `request`.
    async fn said(request: &str, has_counters: bool) -> String {
        let (ask, mut asked) = mpsc::channel::<Asked>(1);
        let server = Server::listen(free(), ask).await.unwrap();
        tokio::spawn(async move {
            while let Some(asked) = asked.recv().await {
                let mut status = Status::default();
                status.gateway.data_path = has_counters.then(DataPathCounters::default);
                let _ = asked.answer.send(Answer::Status { status: Box::new(status) });
            }
        });
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn a_scrape_has_the_format_that_prometheus_reads() {
        let text = said(&get("/metrics"), true).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        assert!(body.contains("\nsimplon_build_info{version="), "{body}");
    }

    #[tokio::test]
    async fn without_the_data_paths_counters_a_scrape_fails() {
        assert!(said(&get("/metrics"), false).await.starts_with("HTTP/1.1 503 "));
    }

    #[tokio::test]
    async fn what_is_no_scrape_is_refused() {
        assert!(said(&get("/metrics/"), true).await.starts_with("HTTP/1.1 404 "));
        let post = said("POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true).await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
        assert!(said("nonsense\r\n\r\n", true).await.starts_with("HTTP/1.1 400 "));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD));
        let answer = said(&long, true).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
}
