-- wrk posts the file that BODY names; the headers are wrk's own (-H).
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
