"""The explorer's page: HTML, style and JavaScript as they are kept here, with a scene of numbers put into them."""
