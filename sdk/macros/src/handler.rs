use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType, Signature};

/// What a handler is for.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Http,
    Invoke,
    Schedule,
    Queue,
}

impl Event {
    fn expected(self) -> &'static str {
        match self {
            Self::Http => {
                "#[dunlin_sdk::http] expects `fn handle(request: Request) -> R`, \
                 where `R: IntoResponse`, or the same with a second argument `context: Context`; \
                 it may be `async`"
            }
            Self::Invoke => {
                "#[dunlin_sdk::invoke] expects `fn handle(event: E) -> Result<R, Err>`, \
                 where `E: FromEvent` and `R: Serialize`, \
                 or the same with a second argument `context: Context`; it may be `async`"
            }
            Self::Schedule => {
                "#[dunlin_sdk::schedule] expects `fn handle(tick: Tick) -> Result<(), Err>`, \
                 or the same with a second argument `context: Context`; \
                 it may return nothing, and may be `async`"
            }
            Self::Queue => {
                "#[dunlin_sdk::queue] expects `fn handle(message: Message) -> Result<(), Err>` \
                 or `fn handle(batch: Batch) -> BatchResult`, \
                 or the same with a second argument `context: Context`; \
                 it may return nothing, and may be `async`"
            }
        }
    }

    /// Whether somebody waits for an answer.
    fn is_answered(self) -> bool {
        match self {
            Self::Http | Self::Invoke => true,
            Self::Schedule | Self::Queue => false,
        }
    }
}

/// The function, and behind it its export or the reason why there is none.
pub(crate) fn expand(event: Event, arguments: TokenStream, function: TokenStream) -> TokenStream {
    let export = syn::parse2::<ItemFn>(function.clone())
        .map_err(|error| complain(event, error.span(), "this is not a function"))
        .and_then(|function| {
            check(event, &arguments, &function.sig)?;
            Ok(export(event, &function.sig))
        })
        .unwrap_or_else(Error::into_compile_error);
    quote! {
        #function
        #export
    }
}

fn check(event: Event, arguments: &TokenStream, sig: &Signature) -> Result<(), Error> {
    let fail = |span, what| Err(complain(event, span, what));
    if !arguments.is_empty() {
        return fail(arguments.span(), "the attribute takes no arguments");
    }
    if let Some(token) = &sig.constness {
        return fail(token.span, "a handler cannot be `const`");
    }
    if let Some(token) = &sig.unsafety {
        return fail(token.span, "a handler cannot be `unsafe`");
    }
    if let Some(abi) = &sig.abi {
        return fail(abi.span(), "a handler cannot be `extern`");
    }
    if !sig.generics.params.is_empty() {
        return fail(sig.generics.span(), "a handler cannot be generic");
    }
    if let Some(FnArg::Receiver(receiver)) = sig.inputs.first() {
        return fail(receiver.span(), "a handler cannot be a method");
    }
    match sig.inputs.len() {
        0 => return fail(sig.ident.span(), "the event is missing"),
        1 | 2 => {}
        _ => return fail(sig.inputs[2].span(), "this argument is one too many"),
    }
    match &sig.output {
        ReturnType::Default if event.is_answered() => {
            fail(sig.ident.span(), "the return type is missing")
        }
        ReturnType::Default | ReturnType::Type(..) => Ok(()),
    }
}

fn complain(event: Event, span: Span, what: &str) -> Error {
    Error::new(span, format!("{what}: {}", event.expected()))
}

fn export(event: Event, sig: &Signature) -> TokenStream {
    let handler = &sig.ident;
    let asyncness = &sig.asyncness;
    let context = (sig.inputs.len() == 2).then(|| quote!(::dunlin_sdk::Context::current()));
    let dot_await = asyncness.as_ref().map(|_| quote!(.await));
    let kind = if asyncness.is_some() { "Async" } else { "Raw" };

    // With these spans the compiler points at the type that is wrong.
    let (taken, taken_span) = match &sig.inputs[0] {
        FnArg::Typed(argument) => (&argument.ty, argument.ty.span()),
        FnArg::Receiver(receiver) => (&receiver.ty, receiver.span()),
    };
    let returned_span = match &sig.output {
        ReturnType::Type(_, returned) => returned.span(),
        ReturnType::Default => sig.ident.span(),
    };
    let call = quote_spanned!(taken_span=> #handler(event, #context) #dot_await);
    // For handlers that the glue runs, as often as there are events.
    let closure = quote!(#asyncness |event| #call);
    let run = match asyncness {
        Some(_) => quote!(run_async),
        None => quote!(run),
    };

    let (world, guest, function) = match event {
        Event::Http => {
            let request = format_ident!("{kind}Request");
            let response = format_ident!("{kind}Response");
            let answer = quote_spanned! {returned_span=>
                ::dunlin_sdk::__private::http_glue::answer(outcome)
            };
            let function = quote! {
                #asyncness fn handle(
                    request: ::dunlin_sdk::__private::http_glue::#request,
                ) -> ::dunlin_sdk::__private::http_glue::#response {
                    ::dunlin_sdk::__private::install();
                    let event = ::dunlin_sdk::Request::from(request);
                    let outcome = #call;
                    ::dunlin_sdk::__private::flush();
                    #answer
                }
            };
            (quote!(http), quote!(http_glue), function)
        }
        Event::Invoke => {
            let error = format_ident!("{kind}FunctionError");
            let event = quote_spanned! {taken_span=>
                ::dunlin_sdk::__private::invoke_glue::event::<#taken>(payload)
            };
            let answer = quote_spanned! {returned_span=>
                ::dunlin_sdk::__private::invoke_glue::answer(outcome)
            };
            let function = quote! {
                #asyncness fn handle(
                    payload: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<
                    ::std::vec::Vec<u8>,
                    ::dunlin_sdk::__private::invoke_glue::#error,
                > {
                    ::dunlin_sdk::__private::install();
                    let event = #event?;
                    let outcome = #call;
                    ::dunlin_sdk::__private::flush();
                    ::std::result::Result::Ok(#answer?)
                }
            };
            (quote!(invoke), quote!(invoke_glue), function)
        }
        Event::Schedule => {
            let tick = format_ident!("{kind}Tick");
            let failure = format_ident!("{kind}Failure");
            let run = quote_spanned! {returned_span=>
                ::dunlin_sdk::__private::schedule_glue::#run(tick, #closure) #dot_await
            };
            let function = quote! {
                #asyncness fn handle(
                    tick: ::dunlin_sdk::__private::schedule_glue::#tick,
                ) -> ::std::result::Result<
                    (),
                    ::dunlin_sdk::__private::schedule_glue::#failure,
                > {
                    ::dunlin_sdk::__private::install();
                    let outcome = #run;
                    ::dunlin_sdk::__private::flush();
                    outcome
                }
            };
            (quote!(schedule), quote!(schedule_glue), function)
        }
        Event::Queue => {
            let message = format_ident!("{kind}Message");
            let failed = format_ident!("{kind}Failed");
            let run = quote_spanned! {returned_span=>
                ::dunlin_sdk::__private::queue_glue::#run::<#taken, _, _, _, _>(batch, #closure)
                    #dot_await
            };
            let function = quote! {
                #asyncness fn handle(
                    batch: ::std::vec::Vec<::dunlin_sdk::__private::queue_glue::#message>,
                ) -> ::std::vec::Vec<::dunlin_sdk::__private::queue_glue::#failed> {
                    ::dunlin_sdk::__private::install();
                    let failed = #run;
                    ::dunlin_sdk::__private::flush();
                    failed
                }
            };
            (quote!(queue), quote!(queue_glue), function)
        }
    };
    let guest = match asyncness {
        Some(_) => quote!(#guest::AsyncGuest),
        None => quote!(#guest::Guest),
    };
    let bindings = match sig.asyncness {
        Some(_) => quote!(::dunlin_sdk::__private::asynchronous::#world),
        None => quote!(::dunlin_sdk::__private::#world),
    };

    quote! {
        const _: () = {
            // Natively nothing calls the handler, and it is not dead.
            let _ = #handler;

            struct Handler;

            impl ::dunlin_sdk::__private::#guest for Handler {
                #function
            }

            #[cfg(target_arch = "wasm32")]
            #[allow(unsafe_code)]
            const _: () = {
                #bindings::export!(Handler with_types_in #bindings);
            };
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler would say of a handler; `None` if it is in order.
    fn complaint(event: Event, arguments: &str, function: &str) -> Option<String> {
        let (arguments, function) = (arguments.parse().unwrap(), function.parse().unwrap());
        let output = expand(event, arguments, function).to_string();
        let (_, message) = output.split_once("compile_error ! {")?;
        Some(message.to_owned())
    }

    #[track_caller]
    fn refused(event: Event, function: &str, why: &str) {
        let message = complaint(event, "", function).expect("it should not compile");
        assert!(message.contains(why), "{message}");
        assert!(message.contains(event.expected()), "{message}");
    }

    #[test]
    fn handlers_in_order_are_exported() {
        for function in [
            "fn handle(request: Request) -> Response { todo!() }",
            "async fn h(r: dunlin_sdk::Request, c: Context) -> Result<Json<u8>, Error> { todo!() }",
        ] {
            for event in [Event::Http, Event::Invoke, Event::Schedule, Event::Queue] {
                assert_eq!(complaint(event, "", function), None);
            }
        }
    }

    #[test]
    fn a_handler_that_nobody_waits_for_may_return_nothing() {
        for event in [Event::Schedule, Event::Queue] {
            assert_eq!(complaint(event, "", "fn handle(event: Event) {}"), None);
        }
    }

    #[test]
    fn any_other_signature_is_refused_with_the_one_that_is_expected() {
        let http = |function, why| refused(Event::Http, function, why);
        http("struct Handle;", "this is not a function");
        http("fn handle() -> Response {}", "the event is missing");
        http("fn handle(r: Request) {}", "the return type is missing");
        http(
            "fn handle(r: Request, c: Context, x: u8) -> Response {}",
            "one too many",
        );
        http("fn handle<T>(r: T) -> Response {}", "generic");
        http("fn handle<'a>(r: &'a Request) -> Response {}", "generic");
        http("const fn handle(r: Request) -> Response {}", "`const`");
        http("unsafe fn handle(r: Request) -> Response {}", "`unsafe`");
        http(
            "extern \"C\" fn handle(r: Request) -> Response {}",
            "`extern`",
        );
        http("fn handle(self) -> Response {}", "method");
        refused(
            Event::Invoke,
            "fn handle() -> Result<(), Error> {}",
            "the event is missing",
        );
        refused(
            Event::Invoke,
            "fn handle(event: Event) {}",
            "the return type is missing",
        );
        for event in [Event::Schedule, Event::Queue] {
            refused(event, "fn handle() {}", "the event is missing");
            refused(event, "fn handle<T>(event: T) {}", "generic");
            refused(event, "fn handle(a: A, b: B, c: C) {}", "one too many");
        }
    }

    #[test]
    fn the_attribute_takes_no_arguments() {
        let function = "fn handle(request: Request) -> Response { todo!() }";
        let message = complaint(Event::Http, "GET, \"/users\"", function).unwrap();
        assert!(message.contains("takes no arguments"), "{message}");
    }

    #[test]
    fn a_refused_function_is_still_there_for_other_diagnostics() {
        let output = expand(
            Event::Http,
            TokenStream::new(),
            quote!(
                fn handle() {}
            ),
        );
        assert!(output.to_string().starts_with("fn handle () { }"));
    }
}
