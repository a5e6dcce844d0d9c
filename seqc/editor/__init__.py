"""What editors and web pages show of specs: names under the cursor, completion, colours, a language server."""
