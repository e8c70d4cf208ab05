//! HTTP/1.1 as far as a pod's server and client need it: one GET, one response with a length. Bytes in, bytes out.
//!
//! The server answers as the simulator's does: `/` and `/get` with a short body, `/bytes/N` with N bytes, `/status/N`
//! with that status, everything else with 404.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The largest body that `/bytes/N` gives.
const MAX_BODY: usize = 16 << 20;
/// The longest header block that either side reads.
const MAX_HEADER: usize = 64 << 10;

/// A client's request.
pub(super) fn request(host: &str, path: &str) -> Vec<u8> {
    // A line break in either would be a second header.
    let clean = |s: &str| s.chars().filter(|c| !c.is_control() && *c != ' ').collect::<String>();
    let (host, path) = (clean(host), clean(path));
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n")
        .into_bytes()
}

/// Takes a whole request off the front of what a server has read and answers it; none as long as it is not whole.
pub(super) fn serve(input: &mut Vec<u8>, client: Ipv4Addr) -> Option<Vec<u8>> {
    let end = match find(input, b"\r\n\r\n") {
        Some(at) => at + 4,
        None if input.len() > MAX_HEADER => {
            input.clear();
            return Some(response(431, b""));
        }
        None => return None,
    };
    let head: Vec<u8> = input.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: BTreeMap<&str, &str> =
        lines.filter_map(|l| l.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
    Some(if method == "GET" { answer(target, &headers, client) } else { response(405, b"") })
}

fn answer(target: &str, headers: &BTreeMap<&str, &str>, client: Ipv4Addr) -> Vec<u8> {
    let path = target.split('?').next().unwrap_or_default();
    if let Some(length) = path.strip_prefix("/bytes/").and_then(|n| n.parse::<usize>().ok()) {
        return match length {
            0..=MAX_BODY => response(200, &(0..length).map(|i| (i % 251) as u8).collect::<Vec<u8>>()),
            _ => response(400, b""),
        };
    }
    if let Some(status) = path.strip_prefix("/status/").and_then(|n| n.parse::<u16>().ok()) {
        return response(if (200..=599).contains(&status) { status } else { 400 }, b"");
    }
    match path {
        "/" => response(200, b"It works!\n"),
        "/get" => response(200, report(target, headers, client).as_bytes()),
        _ => response(404, b"not found\n"),
    }
}

/// httpbin's report of a request, laid out as httpbin lays it out. Arguments are not decoded.
fn report(target: &str, headers: &BTreeMap<&str, &str>, client: Ipv4Addr) -> String {
    let object = |pairs: Vec<(&str, &str)>, separator: &str| {
        let rows: Vec<String> = pairs.iter().map(|(k, v)| format!("\n    {k:?}: {v:?}")).collect();
        let end = if rows.is_empty() { "" } else { "\n  " };
        format!("{{{}{end}}}", rows.join(separator))
    };
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let args = query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")));
    let args = object(args.collect(), ",");
    let all = object(headers.iter().map(|(k, v)| (*k, *v)).collect(), ", ");
    let url = format!("http://{}{target}", headers.get("Host").copied().unwrap_or_default());
    format!(
        "{{\n  \"args\": {args}, \n  \"headers\": {all}, \n  \"origin\": \"{client}\", \n  \"url\": {url:?}\n}}\n"
    )
}

fn response(status: u16, body: &[u8]) -> Vec<u8> {
    // RFC 9110 section 8.6: no length with 204.
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} Status\r\nServer: skep\r\n{length}Connection: keep-alive\r\n\r\n");
    let mut out = head.into_bytes();
    out.extend_from_slice(body);
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// A client's reading of a response.
#[derive(Default)]
pub(super) struct Response {
    head: Vec<u8>,
    /// Known once the header block is whole.
    pub(super) status: Option<u16>,
    length: u64,
    /// Bytes of the body so far.
    pub(super) bytes: u64,
}

impl Response {
    /// Takes the next bytes; false if they are no HTTP.
    pub(super) fn read(&mut self, received: &[u8]) -> bool {
        if self.status.is_some() {
            self.bytes += received.len() as u64;
            return true;
        }
        self.head.extend_from_slice(received);
        let Some(end) = find(&self.head, b"\r\n\r\n") else { return self.head.len() <= MAX_HEADER };
        self.bytes = (self.head.len() - end - 4) as u64;
        let head = String::from_utf8_lossy(&self.head[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.strip_prefix("HTTP/1.1 ")).and_then(|l| l.get(..3));
        self.status = status.and_then(|s| s.parse().ok());
        for (name, value) in lines.filter_map(|l| l.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                self.length = value.trim().parse().unwrap_or(0);
            }
        }
        self.status.is_some()
    }

    /// Whether all of it is there.
    pub(super) fn complete(&self) -> bool {
        self.status.is_some() && self.bytes >= self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(path: &str) -> Response {
        let mut input = request("10.0.0.1", path);
        let reply = serve(&mut input, Ipv4Addr::LOCALHOST).expect("a whole request");
        let mut response = Response::default();
        for piece in reply.chunks(7) {
            assert!(!response.complete());
            assert!(response.read(piece));
        }
        assert!(response.complete());
        response
    }

    #[test]
    fn paths_are_answered_in_the_manner_of_httpbin() {
        let get = |path| {
            let r = exchange(path);
            (r.status, r.bytes)
        };
        assert_eq!(get("/bytes/1000"), (Some(200), 1000));
        assert_eq!(get("/status/418"), (Some(418), 0));
        assert_eq!(get("/status/100"), (Some(400), 0));
        assert_eq!(exchange("/else").status, Some(404));
        assert_eq!(exchange("/get?x=1").status, Some(200));
    }
}
