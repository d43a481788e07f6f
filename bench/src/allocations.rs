//! Heap allocations of the current thread, counted by the allocator itself.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

// The allocator of `weir`.
use tikv_jemallocator::Jemalloc;

thread_local! {
    // Constant and without a destructor: reading it neither allocates nor fails while a thread ends.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    COUNT.with(|count| count.set(count.get() + 1));
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// Sound: every call goes on to `Jemalloc` with the same arguments and its answer comes back unchanged, so what `Jemalloc`
// promises, and what callers must promise it, holds here too. Counting touches no heap memory and cannot unwind.
#[expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait, and nothing else sees every allocation")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { Jemalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        unsafe { Jemalloc.realloc(pointer, layout, size) }
    }
}

/// Allocations (and reallocations) of this thread while `work` runs.
pub fn of(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_vector_is_one_allocation() {
        assert_eq!(super::of(|| drop(std::hint::black_box(vec![1u8; 32]))), 1);
        assert_eq!(super::of(|| ()), 0);
    }
}
