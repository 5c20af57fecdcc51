//! A real Redis as a store under test.

use std::sync::Arc;

use tidewire_sinks::Sink;
use tidewire_sinks::redis::{RedisOptions, RedisSink, RedisUrl};

use super::redis_server::RedisServer;
use super::{Contents, Store, normal};

pub struct RedisStore {
    server: RedisServer,
    options: RedisOptions,
}

impl RedisStore {
    pub fn start() -> Self {
        let server = RedisServer::start();
        let options = RedisOptions::new(RedisUrl::parse(&server.right_url()).unwrap());
        Self { server, options }
    }
}

impl Store for RedisStore {
    fn sink_of_generation(&self, generation: u32) -> Box<dyn Sink> {
        Box::new(RedisSink::new(RedisOptions { generation, ..self.options.clone() }))
    }

    fn maker(&self) -> Arc<dyn Fn() -> Box<dyn Sink> + Send + Sync> {
        let options = self.options.clone();
        Arc::new(move || Box::new(RedisSink::new(options.clone())))
    }

    fn sink_with_wrong_credentials(&self) -> (Box<dyn Sink>, String) {
        let url = RedisUrl::parse(&self.server.url("hunter2")).unwrap();
        (Box::new(RedisSink::new(RedisOptions::new(url))), "hunter2".to_owned())
    }

    fn contents(&self) -> Contents {
        let contents = self.server.contents("tidewire").into_iter();
        let normal = contents.map(|(name, fields)| {
            let fields = normal(name.split(':').next().unwrap(), fields);
            (name, fields)
        });
        normal.collect()
    }

    fn stop(&self) {
        self.server.kill();
    }

    fn start(&self) {
        self.server.start_again();
    }

    fn fill(&self) {
        self.server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        self.server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    fn make_room(&self) {
        self.server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    }

    fn spoil(&self, key: &str) {
        self.server.cli(&["SET", &format!("tidewire:guard:features:{key}"), "of another type"]);
    }
}
