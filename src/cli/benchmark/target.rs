//! The address of a server that runs already: whether one is there, and what is wrong with the address where it is not.

use serde_json::Value;

use super::door::{API, Ask, Door};
use crate::cli::backend::is_address;
use crate::cli::failure::{Exit, Failure};

/// Whether a server answers at `url`, which `flag` names.
pub(super) fn is_server(flag: &str, url: &str, key: Option<&str>) -> Result<(), Failure> {
    is_address(url, &format!("{flag}: "))?;
    let wrong = |what: &str| Err(Failure::new(Exit::Usage, format!("{flag}: {url} {what}")));
    if let Some(base) = url.trim_end_matches('/').strip_suffix(API) {
        return wrong(&format!("has {API} behind it, which is added to it; leave it out: {base}"));
    }
    let door = Door::new(url, key.map(str::to_owned));
    match door.json(&Ask::get("/health")) {
        Ok(health) if has_status(&health) => Ok(()),
        Err(failure) if failure.exit == Some(Exit::Unreachable) => match url.strip_prefix("https://") {
            Some(rest) if speaks_http(rest) => {
                wrong(&format!("gave no answer, because this server speaks http; write http://{rest}"))
            }
            Some(_) | None => Err(failure),
        },
        // Its answer to what it does not know has no status, either.
        Ok(_) | Err(_) if has_metrics(&door) => wrong(
            "is the metrics port of a server; name the address of its API, which `caxton serve` prints behind REST",
        ),
        Ok(_) => wrong("is no Caxton: its /api/v1/health has no status; name the address of one"),
        Err(failure) => Err(failure),
    }
}

fn has_status(health: &Value) -> bool {
    health.get("status").is_some_and(Value::is_string)
}

/// Whether a server at `rest` of an address answers without encryption. The key is not told to it.
fn speaks_http(rest: &str) -> bool {
    let health = Door::new(&format!("http://{rest}"), None).json(&Ask::get("/health"));
    match health {
        Ok(health) => has_status(&health),
        // It asks for a key.
        Err(failure) => failure.exit == Some(Exit::Refused),
    }
}

/// Whether metrics for Prometheus are there.
fn has_metrics(door: &Door) -> bool {
    let metrics = door.send_at_root(&Ask::get("/metrics"), "");
    metrics.is_ok_and(|(status, body)| status == 200 && String::from_utf8_lossy(&body).contains("# TYPE "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::{Exit, is_server};

    /// An address at which everything that begins with this is answered so, and anything else with 404.
    fn served(path: &'static str, body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), mut request) = (stream, [0; 4_096]) else { return };
                let read = stream.read(&mut request).unwrap_or_default();
                let is_known = String::from_utf8_lossy(&request[..read]).starts_with(&format!("GET {path} "));
                let (status, body) = if is_known { ("200 OK", body) } else { ("404 Not Found", "{}") };
                // Who asked may have gone.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        address
    }

    #[test]
    fn what_is_wrong_with_an_address_is_told() {
        let server = served("/api/v1/health", "{\"status\": \"healthy\"}");
        let metrics = served("/metrics", "# TYPE caxton_up gauge\ncaxton_up 1\n");
        let other = served("/api/v1/health", "{}");
        assert!(is_server("--target", &format!("http://{server}"), None).is_ok());
        for (url, what) in [
            (format!("http://{server}/api/v1"), format!("leave it out: http://{server}")),
            (format!("http://{server}/api/v1/"), format!("leave it out: http://{server}")),
            (format!("https://{server}"), format!("this server speaks http; write http://{server}")),
            (format!("http://{metrics}"), "is the metrics port of a server".to_owned()),
            (format!("http://{other}"), "is no Caxton".to_owned()),
            ("nowhere".to_owned(), "write http://HOST:PORT".to_owned()),
        ] {
            let failure = is_server("--target", &url, None).unwrap_err();
            assert_eq!(failure.exit, Some(Exit::Usage), "{url}: {failure}");
            let told = failure.to_string();
            assert!(told.starts_with("--target: ") && told.contains(&what), "{url}: {told}");
        }
    }
}
