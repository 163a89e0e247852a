//! The attributes of `dunlin-sdk`, which documents them.
//!
//! Each leaves the function as it stands and adds, in an anonymous scope, a
//! type that implements the generated trait of the handler and its export. The
//! trait is implemented natively too, so that a native build checks the
//! handler's types; only the export is for WebAssembly alone.

mod handler;
mod lifecycle;

use proc_macro::TokenStream;

use handler::Event;
use lifecycle::Moment;

/// Makes a function the handler of HTTP requests.
#[proc_macro_attribute]
pub fn http(arguments: TokenStream, function: TokenStream) -> TokenStream {
    handler::expand(Event::Http, arguments.into(), function.into()).into()
}

/// Makes a function the handler of direct invocations.
#[proc_macro_attribute]
pub fn invoke(arguments: TokenStream, function: TokenStream) -> TokenStream {
    handler::expand(Event::Invoke, arguments.into(), function.into()).into()
}

/// Makes a function the handler of schedules.
#[proc_macro_attribute]
pub fn schedule(arguments: TokenStream, function: TokenStream) -> TokenStream {
    handler::expand(Event::Schedule, arguments.into(), function.into()).into()
}

/// Makes a function the handler of queues.
#[proc_macro_attribute]
pub fn queue(arguments: TokenStream, function: TokenStream) -> TokenStream {
    handler::expand(Event::Queue, arguments.into(), function.into()).into()
}

/// Makes a function what runs before the first event.
#[proc_macro_attribute]
pub fn init(arguments: TokenStream, function: TokenStream) -> TokenStream {
    lifecycle::expand(Moment::Init, arguments.into(), function.into()).into()
}

/// Makes a function what runs when a reused instance ends.
#[proc_macro_attribute]
pub fn retire(arguments: TokenStream, function: TokenStream) -> TokenStream {
    lifecycle::expand(Moment::Retire, arguments.into(), function.into()).into()
}
