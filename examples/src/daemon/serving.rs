//! `/metrics` and `/healthz`, `/livez`, `/readyz` of a daemon over plain HTTP.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Most connections at once; who comes later waits.
const CONNECTIONS_MAX: usize = 16;

fn answer(code: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = code;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Serves for ever; `metrics` gives the text, or nothing if the machine does not answer.
pub(super) async fn serve<F, Fut>(listener: TcpListener, metrics: F)
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Option<String>> + Send,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let metrics = metrics.clone();
                async move {
                    Ok::<_, Infallible>(match request.uri().path() {
                        "/metrics" => match metrics().await {
                            Some(text) => answer(StatusCode::OK, text),
                            None => {
                                answer(StatusCode::SERVICE_UNAVAILABLE, "the scheduler does not answer\n")
                            }
                        },
                        "/healthz" | "/livez" | "/readyz" => answer(StatusCode::OK, "ok"),
                        _ => answer(StatusCode::NOT_FOUND, "404 page not found\n"),
                    })
                }
            });
            // A client that breaks off is no concern of ours.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_scrape_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, || async { Some("x 1\n".to_string()) }));
        for (path, want) in [("/metrics", "x 1\n"), ("/healthz", "ok"), ("/", "404 page not found\n")] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with(want), "{text}");
        }
        server.abort();
    }
}
