//! Answers that never end, break off, are too long, or never come.

use super::*;

/// Limits to try one after the other, for a machine that stood still before the request had arrived.
const LIMITS_MS: [u64; 3] = [150, 600, 2_400];

#[tokio::test]
async fn a_body_that_never_ends_costs_no_more_than_the_timeout() {
    for (text, body) in [
        ("HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\nhalf", &b"half"[..]),
        ("HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n", &b""[..]),
    ] {
        let mut answered = None;
        for limit in LIMITS_MS {
            let receiver = Receiver::start(Manner::Stall(text)).await;
            let start = Instant::now();
            let Ok(answer) = loopback().send(post(&receiver.url(), limit)).await else { continue };
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(limit), "{took:?}");
            assert!(took < Duration::from_secs(3) + Duration::from_millis(limit), "{took:?}");
            answered = Some(answer);
            break;
        }
        let answer = answered.expect("a head that came is an answer");
        assert_eq!((answer.status, &answer.body[..]), (201, body));
        assert!(!answer.body_complete && !answer.truncated);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_status() {
    let receiver =
        Receiver::start(Manner::AnswerAndClose("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")).await;
    let answer = loopback().send(post(&receiver.url(), 5_000)).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"half"[..]));
    assert!(!answer.body_complete && !answer.truncated);
}

#[tokio::test]
async fn a_body_over_the_limit_is_cut_at_once() {
    let receiver = Receiver::start(Manner::Flood).await;
    let start = Instant::now();
    let answer = loopback().send(post(&receiver.url(), 20_000)).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, BODY_LIMIT_BYTES));
    assert!(answer.truncated && !answer.body_complete);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_body_of_the_limit_is_whole() {
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {BODY_LIMIT_BYTES}\r\n\r\n{}",
        "y".repeat(BODY_LIMIT_BYTES)
    );
    let receiver = Receiver::start(Manner::Answer(text)).await;
    let answer = loopback().send(post(&receiver.url(), 5_000)).await.unwrap();
    assert_eq!(answer.body.len(), BODY_LIMIT_BYTES);
    assert!(answer.body.iter().all(|byte| *byte == b'y'));
    assert!(answer.body_complete && !answer.truncated);
}

#[tokio::test]
async fn silence_is_a_timeout_after_sending() {
    for text in ["", "HTTP/1.1 200 OK\r\nx-half: ", "HTTP/1.1 102 Wait\r\n\r\n"] {
        let mut arrived = false;
        for limit in LIMITS_MS {
            let receiver = Receiver::start(Manner::Stall(text)).await;
            let start = Instant::now();
            let error = loopback().send(post(&receiver.url(), limit)).await.unwrap_err();
            arrived = receiver.requests() == 1;
            if !arrived {
                continue;
            }
            assert!(matches!(error, SendError::Timeout { after_sending: true, .. }), "{error:?}");
            assert!(error.may_have_arrived());
            let wanted = format!("no answer from 127.0.0.1:{} within {limit} ms", receiver.port);
            assert_eq!(error.reason(), wanted);
            assert!(start.elapsed() < Duration::from_secs(3) + Duration::from_millis(limit));
            break;
        }
        assert!(arrived, "{text}");
    }
}
