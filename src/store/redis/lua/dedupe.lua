-- Keys that tell a repeat, shared by the scripts that accept events.
local DAY = 86400000

local function read_seen(raw, content)
  if not raw then return nil end
  local expires, known, answer = struct.unpack('>I6c16', raw)
  if expires <= now then return nil end
  return { same = known == content, answer = raw:sub(23) }
end

local function seen(index, content)
  if index == 0 then return nil end
  return read_seen(call('GET', KEYS[index]), content)
end

local function remember(index, content, answer)
  if index == 0 then return end
  call('SET', KEYS[index], number(now + DAY, 6) .. content .. answer, 'PX', DAY)
end
