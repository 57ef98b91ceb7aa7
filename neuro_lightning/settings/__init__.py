"""What a config may say, checked before anything is built."""
