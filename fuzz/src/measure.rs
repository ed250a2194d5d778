//! Allocator that measures the peak of a thread's memory. A program that measures declares
//! `#[global_allocator] static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;`.

use std::cell::Cell;

/// Allocations above this size fail the target instead of the machine.
const MAX_ALLOCATION_BYTES: usize = 1 << 30;

thread_local! {
    static CURRENT: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOTAL: Cell<u64> = const { Cell::new(0) };
}

/// System allocator that counts the bytes of each thread.
pub struct MeasuringAllocator;

/// Adds to the bytes of this thread. Memory that another thread frees stays counted here.
fn add(bytes: isize) {
    // Without the thread's counters (at its end), nothing is measured.
    let _ = CURRENT.try_with(|current| {
        current.set(current.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(current.get())));
    });
    if bytes > 0 {
        let _ = TOTAL.try_with(|total| total.set(total.get() + bytes.unsigned_abs() as u64));
    }
}

/// Returns the result of a function and the peak of the memory that it took, in bytes; 0 if this program
/// has another allocator.
pub fn peak_bytes<T>(function: impl FnOnce() -> T) -> (T, usize) {
    let before = CURRENT.get();
    PEAK.set(before);
    let result = function();
    (result, PEAK.get().saturating_sub(before).max(0).unsigned_abs())
}

/// Bytes that this thread allocated since its start; freed bytes are not subtracted.
pub fn total_bytes() -> u64 {
    TOTAL.get()
}

#[expect(unsafe_code, reason = "the trait is unsafe; this implementation counts and delegates")]
mod delegation {
    use super::{MAX_ALLOCATION_BYTES, MeasuringAllocator, add};
    use std::alloc::{GlobalAlloc, Layout, System};

    fn size(layout: Layout) -> isize {
        layout.size().cast_signed()
    }

    // SAFETY: every call is delegated unchanged to the system allocator, or fails.
    unsafe impl GlobalAlloc for MeasuringAllocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if layout.size() > MAX_ALLOCATION_BYTES {
                return std::ptr::null_mut();
            }
            add(size(layout));
            // SAFETY: the caller upholds the contract of the system allocator.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            add(-size(layout));
            // SAFETY: the pointer was allocated by the system allocator through this type.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            if layout.size() > MAX_ALLOCATION_BYTES {
                return std::ptr::null_mut();
            }
            add(size(layout));
            // SAFETY: the caller upholds the contract of the system allocator.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
            if new_size > MAX_ALLOCATION_BYTES {
                return std::ptr::null_mut();
            }
            // Both copies exist while the bytes are moved.
            add(new_size.cast_signed());
            add(-size(layout));
            // SAFETY: the pointer was allocated by the system allocator through this type.
            unsafe { System.realloc(pointer, layout, new_size) }
        }
    }
}
