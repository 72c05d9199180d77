"""Alert policies as code for Google Cloud Monitoring; the core knows no SpeakFit."""
