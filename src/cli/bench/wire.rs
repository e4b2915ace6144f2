//! One kept-open connection to the gateway, over which prepared requests are sent.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::http1::{self, Progress, WireError};

/// A connection that is kept open, and what was read of it.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    buffer: BytesMut,
}

/// Sends a request, over a new connection where there is none, and gives what `read` makes of the answer's status and body.
/// After an error the connection is of no more use.
pub async fn exchange<T>(
    line: &mut Option<Line>,
    gateway: SocketAddr,
    request: &[u8],
    read: impl FnOnce(u16, &[u8]) -> T,
) -> std::io::Result<T> {
    let line = if let Some(line) = line {
        line
    } else {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        line.insert(Line { stream, buffer: BytesMut::with_capacity(4_096) })
    };
    line.stream.write_all(request).await?;
    loop {
        match http1::find_message(&line.buffer) {
            Ok(Progress::Whole(frame)) => {
                let status = http1::status(&line.buffer[frame.head]);
                let answer = status.map(|status| read(status, &line.buffer[frame.body.clone()]));
                line.buffer.advance(frame.body.end);
                return answer.map_err(std::io::Error::other);
            }
            Ok(_) => {}
            Err(error) => return Err(std::io::Error::other(error)),
        }
        if line.stream.read_buf(&mut line.buffer).await? == 0 {
            return Err(std::io::Error::other(WireError::Malformed));
        }
    }
}

/// A request with a JSON body, as bytes.
pub fn post(gateway: SocketAddr, path: &str, token: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {gateway}\r\nauthorization: Bearer {token}\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
