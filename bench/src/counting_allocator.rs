//! An allocator that counts, so that allocations are a figure.

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct Counting;

pub(crate) static CALLS: AtomicU64 = AtomicU64::new(0);
pub(crate) static BYTES: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one only counts and passes on")]
mod passing_on {
    use super::{BYTES, CALLS, Counting, Ordering};
    use std::alloc::{GlobalAlloc, Layout, System};

    // SAFETY: every call goes to the system's allocator unchanged.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            CALLS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
            // SAFETY: the caller's promise is the system's.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: it came from here, so from the system.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            CALLS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
            // SAFETY: the caller's promise is the system's.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            CALLS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(size.saturating_sub(layout.size()) as u64, Ordering::Relaxed);
            // SAFETY: it came from here, so from the system.
            unsafe { System.realloc(pointer, layout, size) }
        }
    }
}
