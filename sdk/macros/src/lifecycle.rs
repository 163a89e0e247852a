use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, ReturnType, Signature};

/// What is called beside the handlers.
#[derive(Clone, Copy)]
pub(crate) enum Moment {
    Init,
    Retire,
}

impl Moment {
    fn expected(self) -> &'static str {
        match self {
            Self::Init => {
                "#[dunlin_sdk::init] expects `fn prepare()` \
                 or `fn prepare() -> Result<(), E>`, where `E: Display`"
            }
            Self::Retire => "#[dunlin_sdk::retire] expects `fn close()`",
        }
    }
}

/// The function, and behind it its export or the reason why there is none.
pub(crate) fn expand(moment: Moment, arguments: TokenStream, function: TokenStream) -> TokenStream {
    let export = syn::parse2::<ItemFn>(function.clone())
        .map_err(|error| complain(moment, error.span(), "this is not a function"))
        .and_then(|function| {
            check(moment, &arguments, &function.sig)?;
            Ok(export(moment, &function.sig))
        })
        .unwrap_or_else(Error::into_compile_error);
    quote! {
        #function
        #export
    }
}

fn check(moment: Moment, arguments: &TokenStream, sig: &Signature) -> Result<(), Error> {
    let fail = |span, what| Err(complain(moment, span, what));
    if !arguments.is_empty() {
        return fail(arguments.span(), "the attribute takes no arguments");
    }
    if let Some(token) = &sig.asyncness {
        return fail(token.span, "it cannot be `async`");
    }
    if let Some(token) = &sig.unsafety {
        return fail(token.span, "it cannot be `unsafe`");
    }
    if let Some(abi) = &sig.abi {
        return fail(abi.span(), "it cannot be `extern`");
    }
    if !sig.generics.params.is_empty() {
        return fail(sig.generics.span(), "it cannot be generic");
    }
    if let Some(argument) = sig.inputs.first() {
        return fail(argument.span(), "it takes no arguments");
    }
    match (moment, &sig.output) {
        (Moment::Retire, ReturnType::Type(_, returned)) => {
            fail(returned.span(), "nobody takes what it returns")
        }
        _ => Ok(()),
    }
}

fn complain(moment: Moment, span: Span, what: &str) -> Error {
    Error::new(span, format!("{what}: {}", moment.expected()))
}

fn export(moment: Moment, sig: &Signature) -> TokenStream {
    let name = &sig.ident;
    let (world, guest, function) = match moment {
        Moment::Init => {
            let returned = match &sig.output {
                ReturnType::Type(_, returned) => returned.span(),
                ReturnType::Default => sig.ident.span(),
            };
            // With this span the compiler points at the type that is wrong.
            let outcome = quote_spanned! {returned=>
                ::dunlin_sdk::__private::outcome(#name())
            };
            let function = quote! {
                fn init() -> ::std::result::Result<(), ::std::string::String> {
                    ::dunlin_sdk::__private::install();
                    let outcome = #outcome;
                    ::dunlin_sdk::__private::flush();
                    outcome
                }
            };
            (quote!(initialise), quote!(InitialiseGuest), function)
        }
        Moment::Retire => {
            let function = quote! {
                fn shutdown() {
                    ::dunlin_sdk::__private::install();
                    #name();
                    ::dunlin_sdk::__private::flush();
                }
            };
            (quote!(retire), quote!(RetireGuest), function)
        }
    };
    quote! {
        const _: () = {
            // Natively nothing calls it, and it is not dead.
            let _ = #name;

            struct Moment;

            impl ::dunlin_sdk::__private::#guest for Moment {
                #function
            }

            #[cfg(target_arch = "wasm32")]
            #[allow(unsafe_code)]
            const _: () = {
                ::dunlin_sdk::__private::#world::export!(
                    Moment with_types_in ::dunlin_sdk::__private::#world
                );
            };
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler would say of it; `None` if it is in order.
    fn complaint(moment: Moment, function: &str) -> Option<String> {
        let output = expand(moment, TokenStream::new(), function.parse().unwrap()).to_string();
        let (_, message) = output.split_once("compile_error ! {")?;
        Some(message.to_owned())
    }

    #[test]
    fn functions_in_order_are_exported() {
        for (moment, function) in [
            (Moment::Init, "fn prepare() {}"),
            (Moment::Init, "fn prepare() -> Result<(), Error> { Ok(()) }"),
            (Moment::Retire, "fn close() {}"),
        ] {
            assert_eq!(complaint(moment, function), None, "{function}");
        }
    }

    #[test]
    fn any_other_signature_is_refused_with_the_one_that_is_expected() {
        let both = [Moment::Init, Moment::Retire];
        let cases = [
            ("struct Prepare;", "this is not a function"),
            ("fn prepare(event: Event) {}", "takes no arguments"),
            ("fn prepare(&self) {}", "takes no arguments"),
            ("async fn prepare() {}", "`async`"),
            ("unsafe fn prepare() {}", "`unsafe`"),
            ("extern \"C\" fn prepare() {}", "`extern`"),
            ("fn prepare<T>() {}", "generic"),
        ];
        for moment in both {
            for (function, why) in cases {
                let message = complaint(moment, function).expect("it should not compile");
                assert!(message.contains(why), "{message}");
                assert!(message.contains(moment.expected()), "{message}");
            }
        }
        let message = complaint(Moment::Retire, "fn close() -> u8 { 0 }").unwrap();
        assert!(message.contains("nobody takes"), "{message}");
    }
}
