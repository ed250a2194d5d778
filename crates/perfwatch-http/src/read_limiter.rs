//! Limits on reads with long or large results: the number of concurrent reads and their memory, in total and
//! per principal. Reads above a limit wait, in the order of their arrival.

use crate::error::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use perfwatch_auth::Identity;
use perfwatch_model::limit_table::{self, Limit};
use perfwatch_model::limits;
use perfwatch_store::HeldPermits;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Maximum time that a read waits for a permit.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);
/// Size of a chunk of a large response body.
const CHUNK_BYTES: usize = 64 << 10;

/// Sizes of the pools of permits.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Maximum number of concurrent reads.
    pub reads: usize,
    /// Maximum number of concurrent reads of a principal.
    pub reads_per_principal: usize,
    /// Maximum memory of all reads and their responses in bytes.
    pub bytes: usize,
    /// Maximum memory of the reads of a principal and their responses in bytes.
    pub bytes_per_principal: usize,
    /// Maximum number of waiting reads of a principal.
    pub waiting_per_principal: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            reads: limits::MAX_READS,
            reads_per_principal: limits::MAX_READS_PER_PRINCIPAL,
            bytes: limits::MAX_READ_BYTES,
            bytes_per_principal: limits::MAX_READ_BYTES_PER_PRINCIPAL,
            waiting_per_principal: limits::MAX_WAITING_READS,
        }
    }
}

/// Permits of reads and of their memory in KiB.
#[derive(Debug)]
struct Pool {
    reads: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

impl Pool {
    fn new(reads: usize, bytes: usize) -> Self {
        Self { reads: Arc::new(Semaphore::new(reads)), kib: Arc::new(Semaphore::new(bytes >> 10)) }
    }
}

/// Share of a principal.
#[derive(Debug)]
struct Share {
    pool: Pool,
    /// One permit per read that waits or runs.
    admitted: Arc<Semaphore>,
}

/// Admits reads within the limits.
#[derive(Debug)]
pub struct ReadLimiter {
    limits: ReadLimits,
    total: Pool,
    shares: Mutex<HashMap<String, Weak<Share>>>,
}

impl Default for ReadLimiter {
    fn default() -> Self {
        Self::new(ReadLimits::default())
    }
}

/// Permits of a running read, which are released when the last clone is dropped.
#[derive(Debug)]
pub struct ReadPermit {
    _reads: [OwnedSemaphorePermit; 3],
    memory: Arc<MemoryPermit>,
}

/// Permit for the memory of a read or of its response.
#[derive(Debug)]
struct MemoryPermit {
    share: Arc<Share>,
    /// Permits of the principal and of all principals.
    permits: Mutex<Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>>,
}

impl MemoryPermit {
    /// Releases what exceeds a size.
    fn shrink(&self, bytes: usize) {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((share, total)) = &mut *permits {
            for permit in [share, total] {
                let surplus = permit.num_permits().saturating_sub(bytes.div_ceil(1 << 10));
                drop(permit.split(surplus));
            }
        }
    }
}

/// Acquires permits, and counts the effect of the limit if they are not free.
async fn acquire(semaphore: &Arc<Semaphore>, permits: usize, limit: &Limit) -> Option<OwnedSemaphorePermit> {
    let permits = u32::try_from(permits).unwrap_or(u32::MAX);
    if let Ok(acquired) = semaphore.clone().try_acquire_many_owned(permits) {
        return Some(acquired);
    }
    limit.refuse();
    semaphore.clone().acquire_many_owned(permits).await.ok()
}

/// Waits for permits.
///
/// # Errors
/// Returns `busy` after [`WAIT_TIMEOUT`].
async fn wait<T>(permits: impl Future<Output = Option<T>>) -> Result<T, ApiError> {
    let permits = tokio::time::timeout(WAIT_TIMEOUT, permits).await.ok().flatten();
    permits.ok_or_else(busy_error)
}

fn busy_error() -> ApiError {
    ApiError::unavailable("busy", "too many large reads are running; retry", 5)
}

impl ReadLimiter {
    /// Limiter without reads.
    pub fn new(limits: ReadLimits) -> Self {
        let total = Pool::new(limits.reads, limits.bytes);
        Self { limits, total, shares: Mutex::default() }
    }

    fn share(&self, key: String) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let ReadLimits { reads_per_principal, bytes_per_principal, waiting_per_principal, .. } = self.limits;
        let pool = Pool::new(reads_per_principal, bytes_per_principal);
        let admitted = Arc::new(Semaphore::new(reads_per_principal + waiting_per_principal));
        let share = Arc::new(Share { pool, admitted });
        shares.insert(key, Arc::downgrade(&share));
        share
    }

    /// Admits a read of a principal, and waits for its turn.
    ///
    /// # Errors
    /// Returns `too_many_requests` if too many reads of the principal wait, and `busy` if the read waited
    /// too long.
    pub async fn begin(&self, identity: &Identity) -> Result<Arc<ReadPermit>, ApiError> {
        let share = self.share(identity.share_key());
        let Ok(admitted) = share.admitted.clone().try_acquire_owned() else {
            limit_table::WAITING_READS.refuse();
            let message = "too many of your requests for history are waiting; retry";
            return Err(ApiError::too_many(message, Duration::from_secs(1)));
        };
        let permits = async {
            // The share first: reads that wait for their own share hold no permit of all principals.
            let own = acquire(&share.pool.reads, 1, &limit_table::READS_PER_PRINCIPAL).await?;
            Some([admitted, own, acquire(&self.total.reads, 1, &limit_table::READS).await?])
        };
        let permits = wait(permits).await?;
        let memory = Arc::new(MemoryPermit { share, permits: Mutex::default() });
        Ok(Arc::new(ReadPermit { _reads: permits, memory }))
    }

    /// Reserves the memory of an admitted read and of its response, once. A read that needs more than the
    /// share of a principal gets all of it.
    ///
    /// # Errors
    /// Returns `busy` if the read waited too long.
    pub async fn reserve(&self, permit: &ReadPermit, bytes: usize) -> Result<(), ApiError> {
        let max_bytes = self.limits.bytes_per_principal.min(self.limits.bytes);
        let kib = bytes.min(max_bytes).div_ceil(1 << 10);
        let share = &permit.memory.share.pool.kib;
        let permits = async {
            let own = acquire(share, kib, &limit_table::READ_MEMORY_PER_PRINCIPAL).await?;
            Some((own, acquire(&self.total.kib, kib, &limit_table::READ_MEMORY).await?))
        };
        let permits = wait(permits).await?;
        *permit.memory.permits.lock().unwrap_or_else(PoisonError::into_inner) = Some(permits);
        Ok(())
    }
}

/// Reads with `POST`, because their request has a body.
const POST_READS: [&str; 3] = ["/api/v1/rules/backtest", "/api/v1/query", "/api/v1/capsules"];

/// Returns whether a path may have a long response. WebSocket handshakes and checks of the hub never wait for
/// reads.
fn is_api(path: &str) -> bool {
    path.starts_with("/api/v1/") || path.starts_with("/api/metrics/") || path == "/metrics"
}

/// Runs the handlers of reads on the blocking thread pool with a [`ReadPermit`], so that serving threads never
/// compute for a response. A read ends with its request.
pub async fn run_reads(limiter: Arc<ReadLimiter>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_read =
        matches!(*request.method(), Method::GET | Method::HEAD) && is_api(path) || POST_READS.contains(&path);
    let identity = request.extensions().get::<Identity>().filter(|_| is_read).cloned();
    let Some(identity) = identity else {
        return next.run(request).await;
    };
    let permit = match limiter.begin(&identity).await {
        Ok(permit) => permit,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(Reader { limiter, permit: permit.clone() });
    let (cancelled, runtime) = (CancellationToken::new(), tokio::runtime::Handle::current());
    let _cancel = cancelled.clone().drop_guard();
    let run = move || {
        let response = runtime.block_on(cancelled.run_until_cancelled(next.run(request)));
        drop(permit);
        response
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(Some(response)) => response,
        Ok(None) => busy_error().into_response(),
        Err(error) => match error.try_into_panic() {
            // The middleware logs and answers it, as a panic of a handler.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => ApiError::unavailable("shutting_down", "hub is shutting down", 5).into_response(),
        },
    }
}

/// Permit of the request, for handlers that reserve memory.
#[derive(Debug, Clone)]
pub struct Reader {
    limiter: Arc<ReadLimiter>,
    permit: Arc<ReadPermit>,
}

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::not_found("request did not pass the read middleware");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

impl Reader {
    /// Reserves memory for the read and its response; see [`ReadLimiter::reserve`].
    ///
    /// # Errors
    /// Returns `busy` if the read waited too long.
    pub async fn reserve(&self, bytes: usize) -> Result<(), ApiError> {
        self.limiter.reserve(&self.permit, bytes).await
    }

    /// Permits that the work of the read holds until it ends.
    pub fn permit(&self) -> HeldPermits {
        self.permit.clone()
    }

    /// Permit for the memory alone. A long download holds it, and begins a read for each of its parts, so
    /// that slow clients do not delay reads.
    pub fn memory(&self) -> HeldPermits {
        self.permit.memory.clone()
    }

    /// Response with a JSON text. Memory of the size of the text is held until the client has received it.
    pub fn respond(self, text: String) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.body(text.into())).into_response()
    }

    /// Response with a file that browsers save. The name consists of letters, digits and `-_.`; memory is held as
    /// by [`Self::respond`].
    pub fn respond_file(self, content_type: &'static str, name: &str, bytes: Vec<u8>) -> Response {
        let disposition = format!("attachment; filename=\"{name}\"");
        let headers =
            [(header::CONTENT_TYPE, content_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
        (headers, self.body(bytes.into())).into_response()
    }

    fn body(self, bytes: Bytes) -> Body {
        let memory = self.permit.memory.clone();
        drop(self);
        memory.shrink(bytes.len());
        if bytes.len() <= CHUNK_BYTES {
            return bytes.into();
        }
        let body = HeldBody { bytes, _memory: memory };
        let chunks = futures_util::stream::unfold(body, |mut body| async move {
            let len = body.bytes.len().min(CHUNK_BYTES);
            let chunk = body.bytes.split_to(len);
            (len > 0).then(|| (Ok::<_, std::io::Error>(chunk), body))
        });
        // The compression layer polls the stream again after its end.
        Body::from_stream(chunks.fuse())
    }
}

/// Chunks of a body, with the permit for its memory.
struct HeldBody {
    bytes: Bytes,
    _memory: Arc<MemoryPermit>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use perfwatch_auth::identity::{Credential, Principal};
    use uuid::Uuid;

    fn identity(name: &str) -> Identity {
        let principal = Principal::Account { id: Uuid::now_v7(), name: name.to_owned() };
        Identity::for_ingest(principal, Credential::Bearer(String::new()))
    }

    fn limiter() -> Arc<ReadLimiter> {
        Arc::new(ReadLimiter::new(ReadLimits {
            reads: 3,
            reads_per_principal: 2,
            bytes: 96 << 10,
            bytes_per_principal: 64 << 10,
            waiting_per_principal: 1,
        }))
    }

    async fn read(limiter: &Arc<ReadLimiter>, identity: &Identity, bytes: usize) -> Reader {
        let permit = limiter.begin(identity).await.unwrap();
        let reader = Reader { limiter: limiter.clone(), permit };
        reader.reserve(bytes).await.unwrap();
        reader
    }

    /// Returns whether a read has to wait.
    async fn waits<T>(read: impl Future<Output = T>) -> bool {
        tokio::select! {
            biased;
            _ = read => false,
            () = tokio::task::yield_now() => true,
        }
    }

    fn free(limiter: &ReadLimiter) -> (usize, usize) {
        (limiter.total.kib.available_permits(), limiter.total.reads.available_permits())
    }

    /// Finding H4: reads of a principal wait for each other, and not those of another principal.
    #[tokio::test]
    async fn reads_above_the_share_wait_and_others_run() {
        let (limiter, one, other) = (limiter(), identity("one"), identity("other"));
        let first = limiter.begin(&one).await.unwrap();
        let _second = limiter.begin(&one).await.unwrap();
        let third = limiter.begin(&one);
        tokio::pin!(third);
        assert!(waits(&mut third).await);
        let refused = limiter.begin(&one).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let _other = limiter.begin(&other).await.unwrap();
        drop(first);
        third.await.unwrap();
    }

    /// Finding H4: memory is held until the response was received, and only the memory of its text.
    #[tokio::test]
    async fn memory_is_shared_and_held_by_responses() {
        let (limiter, one, other) = (limiter(), identity("one"), identity("other"));
        let reader = read(&limiter, &one, 1 << 30).await;
        assert_eq!(free(&limiter), (32, 2));
        assert!(waits(read(&limiter, &one, 1)).await);
        drop(read(&limiter, &other, 32 << 10).await);
        // A read holds its permits as long as its last work needs them.
        let held = reader.permit();
        let response = reader.respond("x".repeat(CHUNK_BYTES - 1));
        assert_eq!(free(&limiter).1, 2);
        drop((held, response));
        assert_eq!(free(&limiter), (96, 3));
    }

    #[tokio::test]
    async fn large_responses_are_chunked_and_complete() {
        let limiter = Arc::new(ReadLimiter::default());
        let reader = read(&limiter, &identity("one"), 1 << 20).await;
        let text = "x".repeat(3 * CHUNK_BYTES + 1);
        let body = reader.respond(text.clone()).into_body();
        let all = limits::MAX_READ_BYTES >> 10;
        assert_eq!(free(&limiter).0, all - text.len().div_ceil(1 << 10));
        assert_eq!(axum::body::to_bytes(body, usize::MAX).await.unwrap(), text);
        assert_eq!(free(&limiter).0, all);
    }

    /// Findings H4 and H5: handlers of reads run off the serving threads, and end with their request.
    #[tokio::test]
    async fn reads_run_on_blocking_threads_and_end_with_their_request() {
        use axum::routing::get;
        let limiter = limiter();
        let serving_thread = std::thread::current().id();
        let handler = move || async move { (std::thread::current().id() != serving_thread).to_string() };
        let with_identity = |mut request: Request, next: Next| {
            request.extensions_mut().insert(identity("one"));
            next.run(request)
        };
        let reads = limiter.clone();
        let router = axum::Router::new()
            .route("/api/v1/x", get(handler).post(handler))
            .route("/api/v1/pending", get(std::future::pending::<()>))
            .layer(axum::middleware::from_fn(move |request, next| run_reads(reads.clone(), request, next)))
            .layer(axum::middleware::from_fn(with_identity));
        let request = |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            tower::ServiceExt::oneshot(router.clone(), request)
        };
        for (method, expected) in [(Method::GET, "true"), (Method::POST, "false")] {
            let response = request(method, "/api/v1/x").await.unwrap();
            assert_eq!(axum::body::to_bytes(response.into_body(), 10).await.unwrap(), expected);
        }
        let pending = tokio::spawn(request(Method::GET, "/api/v1/pending"));
        while free(&limiter).1 == 3 {
            tokio::task::yield_now().await;
        }
        pending.abort();
        while free(&limiter).1 != 3 {
            tokio::task::yield_now().await;
        }
    }
}
