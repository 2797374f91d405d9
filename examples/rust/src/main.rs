//! Runs the examples that the command line names, or all: cargo run -- unary stream.

mod calls;
mod connect;
mod failures;
mod requests;
mod tools;

/// The generated messages and client.
#[allow(dead_code)]
mod chat {
    tonic::include_proto!("chatcompletion.v1");
}

const EXAMPLES: [&str; 6] = ["unary", "stream", "deadline", "cancel", "tools", "errors"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let mut client = connect::connect()?;
    for name in EXAMPLES {
        if !named.is_empty() && !named.iter().any(|one| one == name) {
            continue;
        }
        println!("== {name}");
        let result = match name {
            "unary" => calls::unary(&mut client).await,
            "stream" => calls::stream(&mut client).await,
            "deadline" => calls::deadline(&mut client).await,
            "cancel" => calls::cancel(&mut client).await,
            "tools" => tools::tools(&mut client).await,
            _ => failures::errors(&mut client).await,
        };
        if let Err(failure) = result {
            eprintln!("{}", failures::describe(&failure));
            std::process::exit(1);
        }
    }
    Ok(())
}
