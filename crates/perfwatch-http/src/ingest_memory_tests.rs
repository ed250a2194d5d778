//! Tests of the memory of ingest requests.

use super::*;
use axum::http::{StatusCode, header};
use futures_util::{FutureExt as _, stream};
use perfwatch_auth::identity::Credential;
use perfwatch_model::HostId;
use uuid::Uuid;

const MIB: usize = 1 << 20;

fn agent() -> Sender {
    let principal = Principal::Agent { id: Uuid::new_v4(), host: HostId::generate() };
    Sender::new(&Identity::for_ingest(principal, Credential::Bearer(String::new())))
}

fn reserve(memory: &IngestMemory, sender: Sender, bytes: usize) -> Result<Reservation, ApiError> {
    memory.receiving.reserve(sender.id, bytes, sender.receiving_bytes)
}

/// Finding M2: unfinished bodies were not counted.
#[test]
fn bodies_of_a_sender_do_not_take_the_memory_of_others() {
    let memory = IngestMemory::default();
    let mut held = Vec::new();
    for _ in 0..3 {
        let hostile = agent();
        while let Ok(reservation) = reserve(&memory, hostile, 4 * MIB) {
            held.push(reservation);
        }
        assert_eq!(reserve(&memory, hostile, 1).err().unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(reserve(&memory, agent(), 4 * MIB).is_ok());
    }
    assert_eq!(held.len(), 3 * limits::MAX_RECEIVING_BYTES_PER_AGENT / (4 * MIB));
    // More senders than shares in the total: small bodies of others are served.
    for _ in 0..40 {
        let hostile = agent();
        while let Ok(reservation) = reserve(&memory, hostile, MIB) {
            held.push(reservation);
        }
    }
    let honest = agent();
    assert!(reserve(&memory, honest, 4 * MIB).is_err(), "the memory is used up");
    assert!(reserve(&memory, honest, 64 << 10).is_ok());
    assert!(memory.receiving.reserved().0 <= 2 * limits::MAX_RECEIVING_BYTES);
    held.clear();
    assert_eq!(memory.receiving.reserved(), (0, 0));
}

/// Finding M2: the memory of a body is reserved before the body arrives, and while it grows.
#[tokio::test]
async fn memory_is_reserved_before_a_body_is_read() {
    let memory = Arc::new(IngestMemory::default());
    let sender = agent();
    let headers = |length: usize| HeaderMap::from_iter([(header::CONTENT_LENGTH, length.into())]);
    let unfinished = |length| {
        let (memory, headers) = (memory.clone(), headers(length));
        tokio::spawn(async move {
            let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
            memory.receive(sender, &headers, body).await.map(|body| body.bytes)
        })
    };
    let count = limits::MAX_RECEIVING_BYTES_PER_AGENT / (4 * MIB);
    let tasks: Vec<_> = (0..count).map(|_| unfinished(4 * MIB)).collect();
    while memory.receiving.reserved().0 < limits::MAX_RECEIVING_BYTES_PER_AGENT {
        tokio::task::yield_now().await;
    }
    let status = |error: ApiError| error.status();
    let refused = memory.receive(sender, &HeaderMap::new(), Body::from("x")).await;
    assert_eq!(refused.map(|_| ()).map_err(status), Err(StatusCode::TOO_MANY_REQUESTS));
    let accepted = memory.receive(agent(), &HeaderMap::new(), Body::from("x")).await;
    assert_eq!(&accepted.ok().unwrap().bytes[..], b"x");
    for task in &tasks {
        task.abort();
    }
    for task in tasks {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(memory.receiving.reserved().0, 0);
    for headers in [headers(limits::MAX_BODY_BYTES + 1), HeaderMap::new()] {
        let body =
            if headers.is_empty() { Body::from(vec![0; limits::MAX_BODY_BYTES + 1]) } else { Body::empty() };
        let error = memory.receive(sender, &headers, body).await.err().unwrap();
        assert_eq!(error.code(), "body_too_large");
    }
}

/// Finding M2: a sender waits for its own requests only.
#[tokio::test]
async fn decoded_memory_of_a_sender_does_not_delay_others() {
    let memory = IngestMemory::default();
    let hostile = agent();
    let large = limits::MAX_DECODED_REQUEST_BYTES;
    let share = memory.acquire_share(hostile, 8 * MIB).await.ok().unwrap();
    let held = memory.acquire_decoded(share, large).await.ok().unwrap();
    let waiting = memory.acquire_share(hostile, 8 * MIB);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none(), "the share of the sender is used up");
    let honest = memory.acquire_share(agent(), 8 * MIB).await.ok().unwrap();
    let honest = memory.acquire_decoded(honest, 16 * MIB).await.ok().unwrap();
    drop(held);
    let share = waiting.as_mut().now_or_never().unwrap().ok().unwrap();
    // A request that grows does not wait while it holds memory.
    let second = memory.acquire_share(hostile, 8 * MIB).await.ok().unwrap();
    let refused = memory.acquire_decoded(second, large).await;
    assert_eq!(refused.err().unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    let too_large = memory.acquire_decoded(share, large + 1).await;
    assert_eq!(too_large.err().unwrap().code(), "decoded_too_large");
    drop(honest);
    assert_eq!(memory.decoded.available_permits(), limits::MAX_DECODED_BYTES >> 10);
}
