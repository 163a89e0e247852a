//! Image decoders keep tables on the stack, more than the 64 KiB that guests
//! are linked with here (see `.cargo/config.toml`). The linker takes the last
//! stack size it is told, and Cargo tells it that of the build script last.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=1048576");
    }
}
