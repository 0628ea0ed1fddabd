"""The web page of `./launch.sh app`: draw or drop an image, see what a network makes of it."""
