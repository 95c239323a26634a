"""Requests to a provider about one recording: parameters, language, vocabulary, speakers."""
