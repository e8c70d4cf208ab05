//! HTTP/1.1 as far as `curl` and httpbin need it: one GET, one response with a length. Bytes in, bytes out; no socket.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The largest body that `/bytes/N` gives.
const MAX_BODY: usize = 16 << 20;
/// How much of a body a client keeps.
pub(crate) const KEPT_BODY: usize = 64 << 10;
/// The longest header block that either side reads.
const MAX_HEADER: usize = 64 << 10;

/// A client's request.
pub(crate) fn request(host: &str, path: &str) -> Vec<u8> {
    // A line break in either would be a second header.
    let clean = |s: &str| s.chars().filter(|c| !c.is_control() && *c != ' ').collect::<String>();
    let (host, path) = (clean(host), clean(path));
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n")
        .into_bytes()
}

/// Takes a whole request off the front of what a server has read and answers it; none as long as it is not whole.
pub(crate) fn serve(input: &mut Vec<u8>, client: Ipv4Addr) -> Option<Vec<u8>> {
    let end = match find(input, b"\r\n\r\n") {
        Some(at) => at + 4,
        None if input.len() > MAX_HEADER => {
            input.clear();
            return Some(response(431, "text/plain", b""));
        }
        None => return None,
    };
    let head: Vec<u8> = input.drain(..end).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    if method != "GET" {
        return Some(response(405, "text/plain", b""));
    }
    Some(answer(target, &headers, client))
}

fn answer(target: &str, headers: &BTreeMap<String, String>, client: Ipv4Addr) -> Vec<u8> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path == "/" {
        return response(200, "text/plain", b"It works!\n");
    }
    if path == "/get" {
        let body = get_json(target, query, headers, client);
        return response(200, "application/json", body.as_bytes());
    }
    if let Some(length) = path.strip_prefix("/bytes/").and_then(|n| n.parse::<usize>().ok()) {
        return match length {
            0..=MAX_BODY => response(200, "application/octet-stream", &pattern(length)),
            _ => response(400, "text/plain", b""),
        };
    }
    let status = path.strip_prefix("/status/").and_then(|n| n.parse::<u16>().ok());
    match status {
        Some(status @ 200..=599) => response(status, "text/plain", b""),
        Some(_) => response(400, "text/plain", b""),
        None => response(404, "text/plain", b"not found\n"),
    }
}

/// The body of `/bytes/N`: no byte follows from its position modulo a power of two, so that shifted data is seen.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// httpbin's answer: keys in order, indented by two.
fn get_json(target: &str, query: &str, headers: &BTreeMap<String, String>, client: Ipv4Addr) -> String {
    let mut args: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        args.entry(decode(key)).or_default().push(decode(value));
    }
    let host =
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map_or("", |(_, v)| v.as_str());
    let mut json = String::from("{\n  \"args\": {");
    let mut separator = "\n";
    for (key, values) in &args {
        let quoted: Vec<String> = values.iter().map(|v| quote(v)).collect();
        let value =
            if let [one] = quoted.as_slice() { one.clone() } else { format!("[{}]", quoted.join(", ")) };
        let _ = write!(json, "{separator}    {}: {value}", quote(key));
        separator = ",\n";
    }
    json.push_str(if args.is_empty() { "}, \n" } else { "\n  }, \n" });
    json.push_str("  \"headers\": {");
    separator = "\n";
    for (name, value) in headers {
        let _ = write!(json, "{separator}    {}: {}", quote(name), quote(value));
        separator = ", \n";
    }
    let url = format!("http://{host}{target}");
    let _ = write!(json, "\n  }}, \n  \"origin\": \"{client}\", \n  \"url\": {}\n}}\n", quote(&url));
    json
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Undoes the encoding of a form (`+` and `%XX`).
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn response(status: u16, kind: &str, body: &[u8]) -> Vec<u8> {
    let phrase = match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        418 => "I'm a teapot",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    };
    // RFC 9110 section 8.6: no length with 204.
    let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!(
        "HTTP/1.1 {status} {phrase}\r\nServer: skep\r\nContent-Type: {kind}\r\n{length}Connection: keep-alive\r\n\r\n"
    );
    let mut out = head.into_bytes();
    out.extend_from_slice(body);
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// A client's reading of a response.
#[derive(Default)]
pub(crate) struct Response {
    head: Vec<u8>,
    /// Known once the header block is whole.
    pub(crate) status: Option<u16>,
    length: u64,
    /// Bytes of the body so far.
    pub(crate) bytes: u64,
    /// The first of them.
    pub(crate) body: Vec<u8>,
}

/// What is wrong with a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Response {
    /// Takes the next bytes.
    pub(crate) fn read(&mut self, received: &[u8]) -> Result<(), Malformed> {
        let rest;
        let mut bytes = received;
        if self.status.is_none() {
            self.head.extend_from_slice(bytes);
            let Some(end) = find(&self.head, b"\r\n\r\n") else {
                return if self.head.len() > MAX_HEADER { Err(Malformed) } else { Ok(()) };
            };
            rest = self.head.split_off(end + 4);
            self.read_head()?;
            bytes = &rest;
        }
        self.bytes += bytes.len() as u64;
        let keep = KEPT_BODY.saturating_sub(self.body.len()).min(bytes.len());
        self.body.extend_from_slice(&bytes[..keep]);
        Ok(())
    }

    fn read_head(&mut self) -> Result<(), Malformed> {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.strip_prefix("HTTP/1.1 ")).and_then(|l| l.get(..3));
        self.status = Some(status.and_then(|s| s.parse().ok()).ok_or(Malformed)?);
        for (name, value) in lines.filter_map(|l| l.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                self.length = value.trim().parse().map_err(|_| Malformed)?;
            }
        }
        Ok(())
    }

    /// Whether all of it is there.
    pub(crate) fn complete(&self) -> bool {
        self.status.is_some() && self.bytes >= self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 7);

    fn exchange(path: &str) -> Response {
        let mut input = request("10.42.0.51:80", path);
        let reply = serve(&mut input, CLIENT).expect("a whole request");
        assert!(input.is_empty());
        let mut response = Response::default();
        // In small pieces, as segments may bring it.
        for piece in reply.chunks(7) {
            assert!(!response.complete());
            response.read(piece).expect("well-formed");
        }
        response
    }

    #[test]
    fn get_reports_arguments_headers_origin_and_url() {
        let response = exchange("/get?b=2&a=x%20y&b=3");
        assert_eq!(response.status, Some(200));
        let body = String::from_utf8(response.body.clone()).expect("text");
        for part in [
            "\"a\": \"x y\"",
            "\"b\": [\"2\", \"3\"]",
            "\"Host\": \"10.42.0.51:80\"",
            "\"origin\": \"10.42.1.7\"",
            "\"url\": \"http://10.42.0.51:80/get?b=2&a=x%20y&b=3\"",
        ] {
            assert!(body.contains(part), "{part} in {body}");
        }
        assert!(response.complete());
    }

    #[test]
    fn bytes_status_and_the_unknown() {
        assert_eq!(exchange("/bytes/1000").bytes, 1000);
        assert_eq!(exchange("/bytes/0").status, Some(200));
        assert_eq!(exchange("/bytes/99999999999").status, Some(400));
        assert_eq!(exchange("/status/418").status, Some(418));
        assert_eq!(exchange("/status/204").status, Some(204));
        assert_eq!(exchange("/status/100").status, Some(400));
        assert_eq!(exchange("/else").status, Some(404));
    }

    #[test]
    fn a_line_break_in_the_path_makes_no_second_header() {
        let text = String::from_utf8(request("h", "/get\r\nEvil: 1")).expect("text");
        assert!(text.starts_with("GET /getEvil:1 HTTP/1.1\r\n"));
    }

    #[test]
    fn half_a_request_is_waited_for() {
        let mut input = b"GET /get HTTP/1.1\r\nHost: x\r\n".to_vec();
        assert_eq!(serve(&mut input, CLIENT), None);
    }
}
