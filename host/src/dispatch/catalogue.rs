//! The catalogue: which functions are deployed, as one immutable value.

use std::collections::HashMap;
use std::sync::Arc;

use super::Lane;
use crate::function::FunctionName;
use crate::runtime::Version;

/// A function as it is deployed now.
pub struct Function {
    /// The version that runs.
    pub version: Arc<Version>,
    /// Its permits.
    pub lane: Lane,
}

/// What is deployed.
#[derive(Default)]
pub struct Catalogue {
    functions: HashMap<FunctionName, Arc<Function>>,
}

impl Catalogue {
    /// Adds a function, in the place of one with the same name.
    pub fn insert(&mut self, function: Function) {
        self.functions.insert(
            function.version.common.spec.name.clone(),
            Arc::new(function),
        );
    }

    /// Finds one.
    #[must_use]
    pub fn get(&self, name: &FunctionName) -> Option<&Arc<Function>> {
        self.functions.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&FunctionName, &Arc<Function>)> {
        self.functions.iter()
    }
}
