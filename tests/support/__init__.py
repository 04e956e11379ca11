"""What the tests speak to: scripted servers, provider doubles and a real llama.cpp. No tests in here."""
