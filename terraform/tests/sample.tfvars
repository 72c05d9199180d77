# Stands in for what only a real project has, so that a plan can be made anywhere. Checked plans and
# prices use it, applies never do: names here lead nowhere.
project_id        = "speakfit-example"
api_image         = "us-central1-docker.pkg.dev/speakfit-example/speakfit/api@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
worker_image      = "us-central1-docker.pkg.dev/speakfit-example/speakfit/gpu-worker@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
domain            = "platform.speakfit.example"
github_repository = "speakfit/platform"
billing_account   = "012345-6789AB-CDEF01"
