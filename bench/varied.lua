-- No two requests alike: each has its own query and trace id, beside fields of the number and size that browsers send.
local count = 0

request = function()
  count = count + 1
  return wrk.format("GET", "/?item=" .. count, {
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ["Accept-Language"] = "en-US,en;q=0.5",
    ["Accept-Encoding"] = "gzip, deflate, br, zstd",
    ["Cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark",
    ["X-Amzn-Trace-Id"] = string.format("Root=1-%08x-%024x", count, count),
  })
end
