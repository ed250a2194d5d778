//! Frame of the libFuzzer programs.

pub use libfuzzer_sys;
pub use perfwatch_fuzz;

/// Defines the program of a target: it runs every input and measures its memory.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        #[global_allocator]
        static ALLOCATOR: $crate::perfwatch_fuzz::measure::MeasuringAllocator =
            $crate::perfwatch_fuzz::measure::MeasuringAllocator;

        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| -> $crate::libfuzzer_sys::Corpus {
            static TARGET: std::sync::LazyLock<&$crate::perfwatch_fuzz::Target> =
                std::sync::LazyLock::new(|| $crate::perfwatch_fuzz::find_target($name));
            $crate::perfwatch_fuzz::run(&TARGET, data);
            $crate::libfuzzer_sys::Corpus::Keep
        });
    };
}
