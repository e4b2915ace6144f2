//! The `patchbay` program.

/// For SQLite as well; docs/decisions/0031 has what it is worth.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    patchbay::cli::main()
}
