//! Links with two functions of librdkafka replaced: see `__wrap_...` in `pipelines/runtime/src/kafka/foreign.rs`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg=-Wl,--wrap=rd_kafka_metadata_update_op");
        println!("cargo::rustc-link-arg=-Wl,--wrap=rd_kafka_rebootstrap_tmr_stop");
    }
}
