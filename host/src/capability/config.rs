//! `wasi:config`: the values of a function's table `config`, and nothing else. Environment
//! variables are not among them, nor secrets.
//!
//! Two versions of it are in use, which differ in nothing but their names: `0.2.0-rc.1` is
//! wasmtime's and wasmCloud's, `0.2.0-draft-2024-09-27` Spin's.

use wasmtime::component::{HasSelf, Linker};

use crate::runtime::State;

mod release {
    wasmtime::component::bindgen!({
        path: "../wit/deps/config-0.2.0-rc.1",
        world: "wasi:config/imports",
    });
}

mod draft {
    wasmtime::component::bindgen!({
        path: "../wit/deps/config-0.2.0-draft-2024-09-27",
        world: "wasi:config/imports",
    });
}

macro_rules! serve {
    ($version:ident) => {
        impl $version::wasi::config::store::Host for State {
            fn get(
                &mut self,
                key: String,
            ) -> Result<Option<String>, $version::wasi::config::store::Error> {
                let config = &self.common.spec.config;
                let found = config.iter().find(|(name, _)| *name == key);
                Ok(found.map(|(_, value)| value.clone()))
            }

            fn get_all(
                &mut self,
            ) -> Result<Vec<(String, String)>, $version::wasi::config::store::Error> {
                Ok(self.common.spec.config.clone())
            }
        }
    };
}

serve!(release);
serve!(draft);

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    release::wasi::config::store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    draft::wasi::config::store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
