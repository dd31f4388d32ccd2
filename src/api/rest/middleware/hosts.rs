//! Whom a request is for, and which page sent it, where no key says so.
//!
//! Whoever runs a browser on this machine lets every page in it send requests to 127.0.0.1. A page cannot read the answers, unless
//! it gives its own name that address (DNS rebinding): then `Host` has that name. Nor can it hide that it sent a request that
//! changes something: then `Origin` is there. With a picture, a frame or a link it has a GET sent without one, and some GETs have
//! effects too: of these the browser says in `Sec-Fetch-Site` that another site sent them. It does not say which one there, but in
//! `Referer`, as a rule: a page can leave that out, and cannot name another page than its own. A server elsewhere that a page of ours
//! loads something of can pass the request on in its name, though, so that what has effects is not taken on that word.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::api::rest::problem::{Problem, shortened};

/// Where what had a browser send a request came from.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses a request for a host that is neither this machine nor among `allowed`, and one of a page from elsewhere. What a client
/// does not send is not asked for: programs send neither `Origin` nor `Sec-Fetch-Site`.
///
/// # Errors
///
/// A [`Problem`] with status 421 or 403.
pub(super) fn check(allowed: &[String], request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let foreign = hosts.find(|host| !is_ours(host.to_str().ok().map(of_authority), allowed));
    let problem = match (foreign, headers.get(header::ORIGIN)) {
        (Some(host), _) => misdirected(host),
        (None, Some(origin)) if !is_ours(origin.to_str().ok().and_then(of_origin), allowed) => {
            cross_site(origin)
        }
        (None, None) => match elsewhere(headers) {
            Some(site) if has_effect(request) || !refers_to_ours(headers, allowed) => unnamed(site),
            Some(_) | None => return Ok(()),
        },
        (None, Some(_)) => return Ok(()),
    };
    Err(if request.body().is_end_stream() { problem } else { problem.close() })
}

fn is_ours(name: Option<&str>, allowed: &[String]) -> bool {
    let is_allowed = |name: &str| allowed.iter().any(|known| known.eq_ignore_ascii_case(name));
    name.is_some_and(|name| is_of_this_machine(name) || is_allowed(name))
}

/// `localhost`, a name below it, or a loopback address: nobody else can make a name of his own out of these.
fn is_of_this_machine(name: &str) -> bool {
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|address| address.to_canonical().is_loopback());
    }
    let top = name.rsplit('.').next().unwrap_or_default();
    top.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// The name in `localhost:8080` and `[::1]:8080`.
fn of_authority(authority: &str) -> &str {
    let port = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|sign| sign.is_ascii_digit()));
    let name = port.map_or(authority, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name)
}

/// The name in `http://localhost:3000`. `null`, as a page without an address sends it, has none.
fn of_origin(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| of_authority(authority))
}

/// The name in `http://localhost:3000/desk?day=1`.
fn of_page(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    rest.split(['/', '?', '#']).next().map(of_authority)
}

/// The word by which a browser says that a page from elsewhere had it send the request. It does not say which page: one of the
/// same site is one of this machine where the host is, and may be any neighbour of another host.
fn elsewhere(headers: &HeaderMap) -> Option<&HeaderValue> {
    let is_local =
        |host: &HeaderValue| host.to_str().is_ok_and(|host| is_of_this_machine(of_authority(host)));
    let site = headers.get(SEC_FETCH_SITE)?;
    let is_foreign = match site.as_bytes() {
        b"cross-site" => true,
        b"same-site" => !headers.get_all(header::HOST).iter().all(is_local),
        _ => false,
    };
    is_foreign.then_some(site)
}

/// Whether a GET takes something from others: messages that are leased, or the time and room of a copy.
fn has_effect(request: &Request) -> bool {
    let uri = request.uri();
    let leases = uri.path().ends_with("/inbox") && uri.query().is_some();
    leases || uri.path().ends_with("/export/tables")
}

/// Whether the page that had the request sent says that it is one of ours.
fn refers_to_ours(headers: &HeaderMap, allowed: &[String]) -> bool {
    let page = headers.get(header::REFERER).and_then(|page| page.to_str().ok());
    is_ours(page.and_then(of_page), allowed)
}

fn told(value: &HeaderValue) -> String {
    shortened(value.to_str().unwrap_or("(not ASCII)"))
}

fn misdirected(host: &HeaderValue) -> Problem {
    let host = told(host);
    let detail = format!(
        "the request is for the host {host:?}; without API keys the server answers to localhost and loopback addresses alone"
    );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "HOST_NOT_ALLOWED", detail).field("Host").value(&host).remedy(
        "ask for localhost or 127.0.0.1; for a proxy that passes on a name of its own, add that to server.allowed_hosts, or \
         configure API keys (auth.keys_file)",
    )
}

/// `Origin` says that the page is from elsewhere.
fn cross_site(origin: &HeaderValue) -> Problem {
    from_elsewhere("Origin", origin).remedy(
        "send it from a program or from a page of this machine; for a page of your own, add its host to \
         server.allowed_hosts, or configure API keys (auth.keys_file)",
    )
}

/// `Sec-Fetch-Site` says that a page from elsewhere had the browser send it, and nothing says which.
fn unnamed(site: &HeaderValue) -> Problem {
    from_elsewhere("Sec-Fetch-Site", site).remedy(
        "type the address instead of following a link; a page of your own must send Origin or Referer, and its host be in \
         server.allowed_hosts; behind a proxy that decides who comes in, have it drop Sec-Fetch-Site, or configure API keys \
         (auth.keys_file)",
    )
}

/// `header` says with `value` that the page is from elsewhere.
fn from_elsewhere(header: &str, value: &HeaderValue) -> Problem {
    let value = told(value);
    let detail = format!(
        "a page from elsewhere sent the request ({header}: {value}); without API keys the server takes none from pages of \
         other hosts"
    );
    Problem::new(StatusCode::FORBIDDEN, "ORIGIN_NOT_ALLOWED", detail).field(header).value(&value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use axum::body::Body;

    use super::*;

    /// The code with which a request with these headers is refused, if it is.
    fn refused(headers: &[(&str, &str)], allowed: &[&str]) -> Option<&'static str> {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let mut request = axum::http::Request::builder().uri("/api/v1/health");
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        check(&allowed, &request.body(Body::empty()).unwrap()).err().map(|problem| problem.code())
    }

    #[test]
    fn only_names_and_addresses_of_this_machine_are_answered_and_what_is_allowed_besides() {
        for ours in [
            "localhost",
            "LocalHost:8080",
            "localhost.:80",
            "caxton.localhost:8080",
            "127.0.0.1",
            "127.0.0.1:65535",
            "127.8.9.1:1",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
        ] {
            assert_eq!(refused(&[("host", ours)], &[]), None, "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "localhost@evil.example",
            "10.0.0.7:8080",
            "0.0.0.0:8080",
            "[fd00::1]:8080",
            "[::1",
            "::1",
            "",
            "ä",
        ] {
            assert_eq!(refused(&[("host", foreign)], &[]), Some("HOST_NOT_ALLOWED"), "{foreign}");
        }
        for allowed in ["caxton.example:443", "Caxton.Example", "[fd00::1]:8080"] {
            assert_eq!(refused(&[("host", allowed)], &["caxton.example", "[fd00::1]"]), None, "{allowed}");
        }
        // A client of HTTP/1.0 sends none.
        assert_eq!(refused(&[], &[]), None);
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(refused(&twice, &[]), Some("HOST_NOT_ALLOWED"));
    }

    #[test]
    fn a_page_from_elsewhere_sends_nothing() {
        let from = |origin| [("host", "127.0.0.1:8080"), ("origin", origin)];
        for ours in
            ["http://127.0.0.1:8080", "http://localhost:3000", "https://[::1]", "https://tool.localhost"]
        {
            assert_eq!(refused(&from(ours), &[]), None, "{ours}");
        }
        for foreign in [
            "https://evil.example",
            "http://evil.example:8080",
            "http://127.0.0.1.evil.example",
            "null",
            "file://",
            "localhost",
            "",
        ] {
            assert_eq!(refused(&from(foreign), &[]), Some("ORIGIN_NOT_ALLOWED"), "{foreign}");
        }
        assert_eq!(refused(&from("https://desk.example:8443"), &["desk.example"]), None);
    }

    #[test]
    fn a_page_from_elsewhere_that_does_not_say_which_one_it_is_sends_nothing_either() {
        let from = |host, site| [("host", host), ("sec-fetch-site", site)];
        for host in ["localhost:8080", "127.0.0.1:8080", "caxton.example"] {
            for (site, then) in
                [("cross-site", Some("ORIGIN_NOT_ALLOWED")), ("same-origin", None), ("none", None)]
            {
                assert_eq!(refused(&from(host, site), &["caxton.example"]), then, "{host} {site}");
            }
        }
        // Of the same site are all ports of this machine, and all neighbours of another name.
        assert_eq!(refused(&from("localhost:8080", "same-site"), &[]), None);
        let neighbour = refused(&from("caxton.example", "same-site"), &["caxton.example"]);
        assert_eq!(neighbour, Some("ORIGIN_NOT_ALLOWED"));
        // Where it says which page it is, that decides.
        let own =
            [("host", "localhost"), ("origin", "http://127.0.0.1:3000"), ("sec-fetch-site", "cross-site")];
        assert_eq!(refused(&own, &[]), None);
    }
    #[test]
    fn a_page_of_ours_may_say_so_in_the_referer() {
        let from = |site, page| [("host", "127.0.0.1:8080"), ("sec-fetch-site", site), ("referer", page)];
        for ours in [
            "http://localhost:3000/",
            "http://[::1]:3000?day=1",
            "https://desk.example",
            "https://desk.example:8443/a/b?c=d#e",
        ] {
            assert_eq!(refused(&from("cross-site", ours), &["desk.example"]), None, "{ours}");
        }
        for foreign in [
            "https://evil.example/",
            "https://evil.example/http://localhost/",
            "https://evil.example?://localhost/",
            "https://evil.example#@localhost",
            "https://desk.example.evil.example/",
            "https://localhost@evil.example/",
            "localhost",
            "",
        ] {
            let then = refused(&from("cross-site", foreign), &["desk.example"]);
            assert_eq!(then, Some("ORIGIN_NOT_ALLOWED"), "{foreign}");
        }
        // Where a page of an allowed host has a neighbour on another name of its site.
        let neighbour = [
            ("host", "caxton.example"),
            ("sec-fetch-site", "same-site"),
            ("referer", "https://desk.example/"),
        ];
        assert_eq!(refused(&neighbour, &["caxton.example", "desk.example"]), None);
        assert_eq!(refused(&neighbour, &["caxton.example"]), Some("ORIGIN_NOT_ALLOWED"));
        // `Origin` decides where it is there.
        let origin =
            [("host", "localhost"), ("origin", "https://evil.example"), ("referer", "http://localhost/")];
        assert_eq!(refused(&origin, &[]), Some("ORIGIN_NOT_ALLOWED"));
    }
}
