"""The `.proto` files of `chatcompletion.v1` and the stubs generated from them."""
