//! The `patchbay` program.

/// The embedded store allocates with it too; docs/decisions/0034 has what it is worth.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    patchbay::cli::main()
}
