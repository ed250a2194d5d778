//! Global allocator that counts allocations.

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct CountingAllocator;

/// Number of allocations since the start.
pub(crate) static CALLS: AtomicU64 = AtomicU64::new(0);
/// Allocated bytes since the start; freed bytes are not subtracted.
pub(crate) static BYTES: AtomicU64 = AtomicU64::new(0);

#[expect(
    unsafe_code,
    reason = "the trait is unsafe; this implementation counts and delegates to the system allocator"
)]
mod delegation {
    use super::{BYTES, CALLS, CountingAllocator, Ordering};
    use std::alloc::{GlobalAlloc, Layout, System};

    // SAFETY: every call is delegated unchanged to the system allocator.
    unsafe impl GlobalAlloc for CountingAllocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            CALLS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
            // SAFETY: the caller upholds the contract of the system allocator.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: the pointer was allocated by the system allocator through this type.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            CALLS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
            // SAFETY: the caller upholds the contract of the system allocator.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            CALLS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(size.saturating_sub(layout.size()) as u64, Ordering::Relaxed);
            // SAFETY: the pointer was allocated by the system allocator through this type.
            unsafe { System.realloc(pointer, layout, size) }
        }
    }
}
