"""Where arrays live, what hardware can do, and many processes that run one program."""
