//! HTTP/1.1 as far as a pod's server and client need it: one GET, one response with a length. Bytes in, bytes out; no
//! socket and no clock, so that a simulated pod and one in a real namespace say the same.
//!
//! The server answers in the manner of httpbin: `/` and `/get` with a short body, `/bytes/N` with N bytes, `/status/N`
//! with that status, everything else with 404.

use httparse::{EMPTY_HEADER, Request, Status};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The largest body that `/bytes/N` gives.
const MAX_BODY: usize = 16 << 20;
/// How many bytes of a body a client keeps.
pub const KEPT_BODY: usize = 64 << 10;
/// The longest header block that either side reads, bytes.
const MAX_HEADER: usize = 64 << 10;
/// How many header fields either side reads.
const MAX_FIELDS: usize = 64;

/// A client's request. Spaces and control characters are left out: a line break would be a second header.
pub fn request(host: &str, path: &str) -> Vec<u8> {
    let clean = |s: &str| s.chars().filter(|c| !c.is_control() && *c != ' ').collect::<String>();
    let (host, path) = (clean(host), clean(path));
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n")
        .into_bytes()
}

/// Takes a whole request off the front of what a server has read and answers it; `None` as long as it is not whole. What
/// is no request is answered with 400, and all of it is taken.
pub fn serve(input: &mut Vec<u8>, client: Ipv4Addr) -> Option<Vec<u8>> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = Request::new(&mut fields);
    let (taken, reply) = match request.parse(input) {
        Ok(Status::Partial) if input.len() <= MAX_HEADER => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            (input.len(), response(431, "text/plain", b""))
        }
        Err(_) => (input.len(), response(400, "text/plain", b"")),
        Ok(Status::Complete(taken)) if request.method == Some("GET") => {
            let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let fields = request.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect();
            (taken, answer(request.path.unwrap_or_default(), &fields, client))
        }
        Ok(Status::Complete(taken)) => (taken, response(405, "text/plain", b"")),
    };
    input.drain(..taken);
    Some(reply)
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
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// httpbin's answer: keys in order, indented by two.
fn get_json(target: &str, query: &str, headers: &BTreeMap<String, String>, client: Ipv4Addr) -> String {
    let mut args: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        args.entry(key.into_owned()).or_default().push(value.into_owned());
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
    serde_json::Value::from(text).to_string()
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

/// A client's reading of a response.
#[derive(Default)]
pub struct Response {
    head: Vec<u8>,
    /// Known once the header block is whole.
    pub status: Option<u16>,
    length: u64,
    /// Bytes of the body so far.
    pub bytes: u64,
    /// The first of them, up to [`KEPT_BODY`].
    pub body: Vec<u8>,
}

/// A response that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl Response {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// If what came is no response of HTTP/1.1, or has a header block without end.
    pub fn read(&mut self, received: &[u8]) -> Result<(), Malformed> {
        if self.status.is_some() {
            self.keep(received);
            return Ok(());
        }
        self.head.extend_from_slice(received);
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(&self.head).map_err(|_| Malformed)? {
            Status::Partial if self.head.len() > MAX_HEADER => Err(Malformed),
            Status::Partial => Ok(()),
            Status::Complete(end) => {
                let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
                let number =
                    |h: &httparse::Header<'_>| std::str::from_utf8(h.value).ok()?.trim().parse().ok();
                self.length = length.map_or(Some(0), number).ok_or(Malformed)?;
                self.status = response.code;
                let body = self.head.split_off(end);
                self.keep(&body);
                Ok(())
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let kept = KEPT_BODY.saturating_sub(self.body.len()).min(bytes.len());
        self.body.extend_from_slice(&bytes[..kept]);
    }

    /// Whether all of it is there.
    pub fn complete(&self) -> bool {
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

    #[test]
    fn what_is_no_request_is_answered_and_taken() {
        let status = |bytes: &[u8]| {
            let mut input = bytes.to_vec();
            let reply = serve(&mut input, CLIENT).expect("an answer");
            assert!(input.is_empty());
            let mut response = Response::default();
            response.read(&reply).expect("well-formed");
            response.status
        };
        assert_eq!(status(b"\0\0 no HTTP\r\n\r\n"), Some(400));
        assert_eq!(status(b"POST /get HTTP/1.1\r\n\r\n"), Some(405));
        assert_eq!(
            status(&[b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(65), b"\r\n"].concat()),
            Some(431)
        );
        let endless = [b"GET / HTTP/1.1\r\na: ".as_slice(), &vec![b'x'; MAX_HEADER]].concat();
        assert_eq!(status(&endless), Some(431));
    }

    #[test]
    fn what_is_no_response_is_malformed() {
        let read = |bytes: &[u8]| Response::default().read(bytes);
        assert_eq!(read(b"SSH-2.0-x\r\n"), Err(Malformed));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), Err(Malformed));
        assert_eq!(
            read(&[b"HTTP/1.1 200 OK\r\na: ".as_slice(), &vec![b'x'; MAX_HEADER]].concat()),
            Err(Malformed)
        );
    }
}
