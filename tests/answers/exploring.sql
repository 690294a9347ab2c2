-- Written by write_exploring.py.

-- [unnest with ordinality]
select d.id, n * 10 as n, item.distinct as i from github d, unnest(d.payload.commits) with ordinality as u(item, n) where actor.login = 'qdm'
-- oracle: select id, n * 10, item.distinct from (select id, unnest(payload.commits) as item, generate_subscripts(payload.commits, 1) as n from github where actor.login = 'qdm')

-- [unnest with ordinality]
select d.id, n + 1 as n, item.distinct as i from github d, unnest(d.payload.commits) with ordinality as u(item, n) where payload.ref_type = 'tag'
-- oracle: select id, n + 1, item.distinct from (select id, unnest(payload.commits) as item, generate_subscripts(payload.commits, 1) as n from github where payload.ref_type = 'tag')

-- [unnest with ordinality]
select d.order_id, n * 10 as n, item.sku as i from orders d, unnest(d.products) with ordinality as u(item, n) where geoip.city_name = 'Istanbul'
-- oracle: select order_id, n * 10, item.sku from (select order_id, unnest(products) as item, generate_subscripts(products, 1) as n from orders where geoip.city_name = 'Istanbul')

-- [unnest with ordinality]
select d.order_id, n + 1 as n, item as i from orders d, unnest(d.category) with ordinality as u(item, n) where geoip.country_iso_code = 'MA'
-- oracle: select order_id, n + 1, item from (select order_id, unnest(category) as item, generate_subscripts(category, 1) as n from orders where geoip.country_iso_code = 'MA')

-- [unnest with ordinality]
select d.id, n + 1 as n, item.distinct as i from github d, unnest(d.payload.commits) with ordinality as u(item, n) where actor.login = 'audreywatters'
-- oracle: select id, n + 1, item.distinct from (select id, unnest(payload.commits) as item, generate_subscripts(payload.commits, 1) as n from github where actor.login = 'audreywatters')

-- [unnest with ordinality]
select d.order_id, n as n, item as i from orders d, unnest(d.sku) with ordinality as u(item, n) where geoip.country_iso_code = 'AE'
-- oracle: select order_id, n, item from (select order_id, unnest(sku) as item, generate_subscripts(sku, 1) as n from orders where geoip.country_iso_code = 'AE')

-- [unnest with ordinality]
select d.order_id, n * 10 as n, item as i from orders d, unnest(d.sku) with ordinality as u(item, n) where geoip.city_name = 'Cairo'
-- oracle: select order_id, n * 10, item from (select order_id, unnest(sku) as item, generate_subscripts(sku, 1) as n from orders where geoip.city_name = 'Cairo')

-- [unnest with ordinality]
select d.order_id, n * 10 as n, item as i from orders d, unnest(d.sku) with ordinality as u(item, n) where day_of_week = 'Tuesday'
-- oracle: select order_id, n * 10, item from (select order_id, unnest(sku) as item, generate_subscripts(sku, 1) as n from orders where day_of_week = 'Tuesday')

-- [unnest with ordinality]
select d.order_id, n + 1 as n, item as i from orders d, unnest(d.sku) with ordinality as u(item, n) where geoip.country_iso_code = 'CO'
-- oracle: select order_id, n + 1, item from (select order_id, unnest(sku) as item, generate_subscripts(sku, 1) as n from orders where geoip.country_iso_code = 'CO')

-- [unnest with ordinality]
select d.order_id, n + 1 as n, item as i from orders d, unnest(d.sku) with ordinality as u(item, n) where geoip.country_iso_code = 'US'
-- oracle: select order_id, n + 1, item from (select order_id, unnest(sku) as item, generate_subscripts(sku, 1) as n from orders where geoip.country_iso_code = 'US')

-- [unnest with ordinality]
select d.order_id, n * 10 as n, item.price as i from orders d, unnest(d.products) with ordinality as u(item, n) where day_of_week = 'Friday'
-- oracle: select order_id, n * 10, item.price from (select order_id, unnest(products) as item, generate_subscripts(products, 1) as n from orders where day_of_week = 'Friday')

-- [unnest with ordinality]
select d.order_id, n * 10 as n, item.quantity as i from orders d, unnest(d.products) with ordinality as u(item, n) where user = 'rani'
-- oracle: select order_id, n * 10, item.quantity from (select order_id, unnest(products) as item, generate_subscripts(products, 1) as n from orders where user = 'rani')

-- [unnest with ordinality]
select d.id, n + 1 as n, item.author.name as i from github d, unnest(d.payload.commits) with ordinality as u(item, n) where actor.login = 'gyuho'
-- oracle: select id, n + 1, item.author.name from (select id, unnest(payload.commits) as item, generate_subscripts(payload.commits, 1) as n from github where actor.login = 'gyuho')

-- [unnest with ordinality]
select d.id, n * 10 as n, item.author.name as i from github d, unnest(d.payload.commits) with ordinality as u(item, n) where payload.action = 'started'
-- oracle: select id, n * 10, item.author.name from (select id, unnest(payload.commits) as item, generate_subscripts(payload.commits, 1) as n from github where payload.action = 'started')

-- [unnest with ordinality]
select d.id, n * 10 as n, item.sha as i from github d, unnest(d.payload.commits) with ordinality as u(item, n) where repo.name = 'westurner/sphinxcontrib-srclinks'
-- oracle: select id, n * 10, item.sha from (select id, unnest(payload.commits) as item, generate_subscripts(payload.commits, 1) as n from github where repo.name = 'westurner/sphinxcontrib-srclinks')

-- [unnest with ordinality]
select d.order_id, n as n, item as i from orders d, unnest(d.category) with ordinality as u(item, n) where geoip.country_iso_code = 'US'
-- oracle: select order_id, n, item from (select order_id, unnest(category) as item, generate_subscripts(category, 1) as n from orders where geoip.country_iso_code = 'US')

-- [unnest with ordinality]
select d.order_id, n as n, item.sku as i from orders d, unnest(d.products) with ordinality as u(item, n) where day_of_week = 'Monday'
-- oracle: select order_id, n, item.sku from (select order_id, unnest(products) as item, generate_subscripts(products, 1) as n from orders where day_of_week = 'Monday')

-- [unnest with ordinality]
select d.order_id, n * 10 as n, item.product_name as i from orders d, unnest(d.products) with ordinality as u(item, n) where geoip.city_name = 'Birmingham'
-- oracle: select order_id, n * 10, item.product_name from (select order_id, unnest(products) as item, generate_subscripts(products, 1) as n from orders where geoip.city_name = 'Birmingham')

-- [unnest with ordinality]
select d.order_id, n as n, item.price as i from orders d, unnest(d.products) with ordinality as u(item, n) where day_of_week = 'Tuesday'
-- oracle: select order_id, n, item.price from (select order_id, unnest(products) as item, generate_subscripts(products, 1) as n from orders where day_of_week = 'Tuesday')

-- [unnest with ordinality]
select d.id, n + 1 as n, item.distinct as i from github d, unnest(d.payload.commits) with ordinality as u(item, n) where repo.name = 'captainkirkby/Gears'
-- oracle: select id, n + 1, item.distinct from (select id, unnest(payload.commits) as item, generate_subscripts(payload.commits, 1) as n from github where repo.name = 'captainkirkby/Gears')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.manufacturer) as u(item) on true where day_of_week = 'Thursday'
-- oracle: select order_id, item from (select order_id, unnest(case when len(manufacturer) > 0 then manufacturer else [null] end) as item from orders where day_of_week = 'Thursday')

-- [left join unnest]
select d.id, item.message as i from github d left join unnest(d.payload.commits) as u(item) on true where payload.action = 'opened'
-- oracle: select id, item.message from (select id, unnest(case when len(payload.commits) > 0 then payload.commits else [null] end) as item from github where payload.action = 'opened')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.manufacturer) as u(item) on true where user = 'elyssa'
-- oracle: select order_id, item from (select order_id, unnest(case when len(manufacturer) > 0 then manufacturer else [null] end) as item from orders where user = 'elyssa')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.sku) as u(item) on true where user = 'mary'
-- oracle: select order_id, item from (select order_id, unnest(case when len(sku) > 0 then sku else [null] end) as item from orders where user = 'mary')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.manufacturer) as u(item) on true where geoip.city_name = 'Dubai'
-- oracle: select order_id, item from (select order_id, unnest(case when len(manufacturer) > 0 then manufacturer else [null] end) as item from orders where geoip.city_name = 'Dubai')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.category) as u(item) on true where day_of_week = 'Thursday'
-- oracle: select order_id, item from (select order_id, unnest(case when len(category) > 0 then category else [null] end) as item from orders where day_of_week = 'Thursday')

-- [left join unnest]
select d.id, item.message as i from github d left join unnest(d.payload.commits) as u(item) on true where payload.action = 'reopened'
-- oracle: select id, item.message from (select id, unnest(case when len(payload.commits) > 0 then payload.commits else [null] end) as item from github where payload.action = 'reopened')

-- [left join unnest]
select d.order_id, item.quantity as i from orders d left join unnest(d.products) as u(item) on true where geoip.country_iso_code = 'MA'
-- oracle: select order_id, item.quantity from (select order_id, unnest(case when len(products) > 0 then products else [null] end) as item from orders where geoip.country_iso_code = 'MA')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.manufacturer) as u(item) on true where geoip.country_iso_code = 'TR'
-- oracle: select order_id, item from (select order_id, unnest(case when len(manufacturer) > 0 then manufacturer else [null] end) as item from orders where geoip.country_iso_code = 'TR')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.category) as u(item) on true where geoip.country_iso_code = 'GB'
-- oracle: select order_id, item from (select order_id, unnest(case when len(category) > 0 then category else [null] end) as item from orders where geoip.country_iso_code = 'GB')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.manufacturer) as u(item) on true where day_of_week = 'Friday'
-- oracle: select order_id, item from (select order_id, unnest(case when len(manufacturer) > 0 then manufacturer else [null] end) as item from orders where day_of_week = 'Friday')

-- [left join unnest]
select d.id, item.message as i from github d left join unnest(d.payload.commits) as u(item) on true where actor.login = 'mirror-updates'
-- oracle: select id, item.message from (select id, unnest(case when len(payload.commits) > 0 then payload.commits else [null] end) as item from github where actor.login = 'mirror-updates')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.manufacturer) as u(item) on true where day_of_week = 'Monday'
-- oracle: select order_id, item from (select order_id, unnest(case when len(manufacturer) > 0 then manufacturer else [null] end) as item from orders where day_of_week = 'Monday')

-- [left join unnest]
select d.id, item.author.name as i from github d left join unnest(d.payload.commits) as u(item) on true where repo.name = 'rust-lang/rust'
-- oracle: select id, item.author.name from (select id, unnest(case when len(payload.commits) > 0 then payload.commits else [null] end) as item from github where repo.name = 'rust-lang/rust')

-- [left join unnest]
select d.id, item.sha as i from github d left join unnest(d.payload.commits) as u(item) on true where repo.name = 'rust-lang/rust'
-- oracle: select id, item.sha from (select id, unnest(case when len(payload.commits) > 0 then payload.commits else [null] end) as item from github where repo.name = 'rust-lang/rust')

-- [left join unnest]
select d.order_id, item as i from orders d left join unnest(d.sku) as u(item) on true where user = 'abd'
-- oracle: select order_id, item from (select order_id, unnest(case when len(sku) > 0 then sku else [null] end) as item from orders where user = 'abd')

-- [unnest, group by, ordered]
select item as i, count(*) as n from orders d, unnest(d.sku) as u(item) where item is not null group by 1 having count(*) >= 20 order by 2 desc, 1 limit 50
-- oracle: select item as i, count(*) as n from (select unnest(sku) as item from orders) where item is not null group by 1 having count(*) >= 20 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item as i, count(*) as n from orders d, unnest(d.manufacturer) as u(item) where item is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50
-- oracle: select item as i, count(*) as n from (select unnest(manufacturer) as item from orders) where item is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.author.name as i, count(*) as n from github d, unnest(d.payload.commits) as u(item) where item.author.name is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50
-- oracle: select item.author.name as i, count(*) as n from (select unnest(payload.commits) as item from github) where item.author.name is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item as i, count(*) as n from orders d, unnest(d.category) as u(item) where item is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50
-- oracle: select item as i, count(*) as n from (select unnest(category) as item from orders) where item is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.distinct as i, count(*) as n from github d, unnest(d.payload.commits) as u(item) where item.distinct is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50
-- oracle: select item.distinct as i, count(*) as n from (select unnest(payload.commits) as item from github) where item.distinct is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.distinct as i, count(*) as n from github d, unnest(d.payload.commits) as u(item) where item.distinct is not null group by 1 having count(*) >= 20 order by 2 desc, 1 limit 50
-- oracle: select item.distinct as i, count(*) as n from (select unnest(payload.commits) as item from github) where item.distinct is not null group by 1 having count(*) >= 20 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.sku as i, count(*) as n from orders d, unnest(d.products) as u(item) where item.sku is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50
-- oracle: select item.sku as i, count(*) as n from (select unnest(products) as item from orders) where item.sku is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.message as i, count(*) as n from github d, unnest(d.payload.commits) as u(item) where item.message is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50
-- oracle: select item.message as i, count(*) as n from (select unnest(payload.commits) as item from github) where item.message is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.quantity as i, count(*) as n from orders d, unnest(d.products) as u(item) where item.quantity is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50
-- oracle: select item.quantity as i, count(*) as n from (select unnest(products) as item from orders) where item.quantity is not null group by 1 having count(*) >= 5 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.sha as i, count(*) as n from github d, unnest(d.payload.commits) as u(item) where item.sha is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50
-- oracle: select item.sha as i, count(*) as n from (select unnest(payload.commits) as item from github) where item.sha is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.quantity as i, count(*) as n from orders d, unnest(d.products) as u(item) where item.quantity is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50
-- oracle: select item.quantity as i, count(*) as n from (select unnest(products) as item from orders) where item.quantity is not null group by 1 having count(*) >= 2 order by 2 desc, 1 limit 50

-- [unnest, group by, ordered]
select item.sha as i, count(*) as n from github d, unnest(d.payload.commits) as u(item) where item.sha is not null group by 1 having count(*) >= 20 order by 2 desc, 1 limit 50
-- oracle: select item.sha as i, count(*) as n from (select unnest(payload.commits) as item from github) where item.sha is not null group by 1 having count(*) >= 20 order by 2 desc, 1 limit 50

-- [unnest in step]
select d.order_id, a.sku as a1, b as b1 from orders d, unnest(d.products, d.category) as u(a, b) where day_of_week = 'Saturday'
-- oracle: select order_id, a.sku, b from (select order_id, unnest(products) as a, unnest(category) as b from orders where day_of_week = 'Saturday')

-- [unnest in step]
select d.order_id, a.sku as a1, b as b1 from orders d, unnest(d.products, d.sku) as u(a, b) where day_of_week = 'Saturday'
-- oracle: select order_id, a.sku, b from (select order_id, unnest(products) as a, unnest(sku) as b from orders where day_of_week = 'Saturday')

-- [unnest in step]
select d.order_id, a.sku as a1, b as b1 from orders d, unnest(d.products, d.category) as u(a, b) where geoip.city_name = 'Dubai'
-- oracle: select order_id, a.sku, b from (select order_id, unnest(products) as a, unnest(category) as b from orders where geoip.city_name = 'Dubai')

-- [unnest in step]
select d.order_id, a.sku as a1, b as b1 from orders d, unnest(d.products, d.manufacturer) as u(a, b) where geoip.city_name = 'Dubai'
-- oracle: select order_id, a.sku, b from (select order_id, unnest(products) as a, unnest(manufacturer) as b from orders where geoip.city_name = 'Dubai')

-- [unnest in step]
select d.order_id, a as a1, b.sku as b1 from orders d, unnest(d.sku, d.products) as u(a, b) where geoip.city_name = 'Birmingham'
-- oracle: select order_id, a, b.sku from (select order_id, unnest(sku) as a, unnest(products) as b from orders where geoip.city_name = 'Birmingham')

-- [unnest in step]
select d.order_id, a as a1, b as b1 from orders d, unnest(d.category, d.sku) as u(a, b) where geoip.city_name = 'Birmingham'
-- oracle: select order_id, a, b from (select order_id, unnest(category) as a, unnest(sku) as b from orders where geoip.city_name = 'Birmingham')

-- [unnest in step]
select d.order_id, a.sku as a1, b as b1 from orders d, unnest(d.products, d.category) as u(a, b) where user = 'betty'
-- oracle: select order_id, a.sku, b from (select order_id, unnest(products) as a, unnest(category) as b from orders where user = 'betty')

-- [unnest in step]
select d.order_id, a as a1, b as b1 from orders d, unnest(d.sku, d.manufacturer) as u(a, b) where geoip.country_iso_code = 'GB'
-- oracle: select order_id, a, b from (select order_id, unnest(sku) as a, unnest(manufacturer) as b from orders where geoip.country_iso_code = 'GB')

-- [unnest in step]
select d.order_id, a as a1, b.sku as b1 from orders d, unnest(d.sku, d.products) as u(a, b) where user = 'rabbia'
-- oracle: select order_id, a, b.sku from (select order_id, unnest(sku) as a, unnest(products) as b from orders where user = 'rabbia')

-- [unnest in step]
select d.order_id, a.sku as a1, b as b1 from orders d, unnest(d.products, d.manufacturer) as u(a, b) where day_of_week = 'Tuesday'
-- oracle: select order_id, a.sku, b from (select order_id, unnest(products) as a, unnest(manufacturer) as b from orders where day_of_week = 'Tuesday')

-- [unnest in step]
select d.order_id, a as a1, b as b1 from orders d, unnest(d.sku, d.manufacturer) as u(a, b) where geoip.city_name = 'Istanbul'
-- oracle: select order_id, a, b from (select order_id, unnest(sku) as a, unnest(manufacturer) as b from orders where geoip.city_name = 'Istanbul')

-- [unnest in step]
select d.order_id, a as a1, b.sku as b1 from orders d, unnest(d.category, d.products) as u(a, b) where geoip.city_name = 'Abu Dhabi'
-- oracle: select order_id, a, b.sku from (select order_id, unnest(category) as a, unnest(products) as b from orders where geoip.city_name = 'Abu Dhabi')

-- [generate_series, ordered]
select s.n, count(d.delta) as documents from generate_series(16, 23, 1) as s(n) left join wiki d on d.delta = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.added) as documents from generate_series(17, 28, 1) as s(n) left join wiki d on d.added = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.added) as documents from generate_series(14, 19, 1) as s(n) left join wiki d on d.added = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.metroCode) as documents from generate_series(548, 568, 5) as s(n) left join wiki d on d.metroCode = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.deleted) as documents from generate_series(-15, 0, 5) as s(n) left join wiki d on d.deleted = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.customer_id) as documents from generate_series(27, 67, 5) as s(n) left join orders d on d.customer_id = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.customer_id) as documents from generate_series(22, 27, 1) as s(n) left join orders d on d.customer_id = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.payload.distinct_size) as documents from generate_series(-24, 11, 5) as s(n) left join github d on d.payload.distinct_size = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.day_of_week_i) as documents from generate_series(-2, 23, 5) as s(n) left join orders d on d.day_of_week_i = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.deleted) as documents from generate_series(-2, 2, 1) as s(n) left join wiki d on d.deleted = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.deleted) as documents from generate_series(0, 3, 1) as s(n) left join wiki d on d.deleted = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.actor.id) as documents from generate_series(2429070, 2429115, 5) as s(n) left join github d on d.actor.id = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.customer_id) as documents from generate_series(2, 62, 5) as s(n) left join orders d on d.customer_id = s.n group by s.n order by s.n

-- [generate_series, ordered]
select s.n, count(d.total_unique_products) as documents from generate_series(-14, 8, 2) as s(n) left join orders d on d.total_unique_products = s.n group by s.n order by s.n

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-01-01 00:00:00', timestamp '2015-01-01 00:00:00' + interval '25 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', created_at::timestamp) as t, count(*) as n from github where payload.action = 'reopened' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2016-12-01 00:00:00', timestamp '2016-12-01 00:00:00' + interval '9 days', interval '1 day') as s(t) left join (select date_trunc('day', order_date::timestamp) as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-01-01 00:29:00', timestamp '2015-01-01 00:29:00' + interval '37 minutes', interval '1 minute') as s(t) left join (select date_trunc('minute', created_at::timestamp) as t, count(*) as n from github where actor.login = 'mirror-updates' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-01-01 00:00:00', timestamp '2015-01-01 00:00:00' + interval '38 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', created_at::timestamp) as t, count(*) as n from github where type = 'ForkEvent' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-09-12 00:00:00', timestamp '2015-09-12 00:00:00' + interval '27 days', interval '1 day') as s(t) left join (select date_trunc('day', time::timestamp) as t, count(*) as n from wiki where countryName = 'Japan' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 11:00:00', timestamp '2023-07-10 11:00:00' + interval '24 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', eventTime::timestamp) as t, count(*) as n from trail where eventSource = 'health.amazonaws.com' group by 1) c on c.t = s.t order by s.t
-- oracle: select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 11:00:00', timestamp '2023-07-10 11:00:00' + interval '24 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', eventTime::timestamp) as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventSource = 'health.amazonaws.com' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-09-09 00:00:00', timestamp '2015-09-09 00:00:00' + interval '22 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', time::timestamp) as t, count(*) as n from wiki where channel = '#en.wikipedia' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 11:00:00', timestamp '2023-07-10 11:00:00' + interval '33 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', eventTime::timestamp) as t, count(*) as n from trail where eventName = 'AssumeRole' group by 1) c on c.t = s.t order by s.t
-- oracle: select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 11:00:00', timestamp '2023-07-10 11:00:00' + interval '33 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', eventTime::timestamp) as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'AssumeRole' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-09-12 00:00:00', timestamp '2015-09-12 00:00:00' + interval '34 days', interval '1 day') as s(t) left join (select date_trunc('day', time::timestamp) as t, count(*) as n from wiki where regionName = 'Taipei' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-01-01 00:00:00', timestamp '2015-01-01 00:00:00' + interval '36 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', created_at::timestamp) as t, count(*) as n from github where actor.login = 'audreywatters' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-09-12 00:00:00', timestamp '2015-09-12 00:00:00' + interval '26 days', interval '1 day') as s(t) left join (select date_trunc('day', time::timestamp) as t, count(*) as n from wiki where namespace = 'Discussion utilisateur' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-01-01 00:00:00', timestamp '2015-01-01 00:00:00' + interval '24 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', created_at::timestamp) as t, count(*) as n from github where repo.name = 'cswetenham/tabspace2.1' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-09-12 00:00:00', timestamp '2015-09-12 00:00:00' + interval '10 days', interval '1 day') as s(t) left join (select date_trunc('day', time::timestamp) as t, count(*) as n from wiki where user = 'Ximik1991Bot' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 00:00:00', timestamp '2023-07-10 00:00:00' + interval '16 days', interval '1 day') as s(t) left join (select date_trunc('day', eventTime::timestamp) as t, count(*) as n from trail where errorCode = 'NoSuchPublicAccessBlockConfiguration' group by 1) c on c.t = s.t order by s.t
-- oracle: select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 00:00:00', timestamp '2023-07-10 00:00:00' + interval '16 days', interval '1 day') as s(t) left join (select date_trunc('day', eventTime::timestamp) as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where errorCode = 'NoSuchPublicAccessBlockConfiguration' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2016-12-01 00:00:00', timestamp '2016-12-01 00:00:00' + interval '28 days', interval '1 day') as s(t) left join (select date_trunc('day', order_date::timestamp) as t, count(*) as n from orders where user = 'elyssa' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2016-12-01 01:00:00', timestamp '2016-12-01 01:00:00' + interval '36 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', order_date::timestamp) as t, count(*) as n from orders where user = 'rani' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2015-01-01 00:00:00', timestamp '2015-01-01 00:00:00' + interval '36 hours', interval '1 hour') as s(t) left join (select date_trunc('hour', created_at::timestamp) as t, count(*) as n from github where repo.name = 'qdm/qdm.github.io' group by 1) c on c.t = s.t order by s.t

-- [gap filling, ordered]
select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 00:00:00', timestamp '2023-07-10 00:00:00' + interval '4 days', interval '1 day') as s(t) left join (select date_trunc('day', eventTime::timestamp) as t, count(*) as n from trail where eventName = 'GetUser' group by 1) c on c.t = s.t order by s.t
-- oracle: select s.t, coalesce(c.n, 0) as n from generate_series(timestamp '2023-07-10 00:00:00', timestamp '2023-07-10 00:00:00' + interval '4 days', interval '1 day') as s(t) left join (select date_trunc('day', eventTime::timestamp) as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'GetUser' group by 1) c on c.t = s.t order by s.t

-- [mode]
select user as k, mode(metroCode) as m, count(*) as n from wiki where metroCode is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select user as k, metroCode as m, row_number() over (partition by user order by count(*) desc, metroCode) as place, sum(count(*)) over (partition by user) as n from wiki where metroCode is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select user as k, mode(day_of_week_i) as m, count(*) as n from orders where day_of_week_i is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select user as k, day_of_week_i as m, row_number() over (partition by user order by count(*) desc, day_of_week_i) as place, sum(count(*)) over (partition by user) as n from orders where day_of_week_i is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select errorCode as k, mode(awsRegion) as m, count(*) as n from trail where awsRegion is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select errorCode as k, awsRegion as m, row_number() over (partition by errorCode order by count(*) desc, awsRegion) as place, sum(count(*)) over (partition by errorCode) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where awsRegion is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select namespace as k, mode(user) as m, count(*) as n from wiki where user is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select namespace as k, user as m, row_number() over (partition by namespace order by count(*) desc, user) as place, sum(count(*)) over (partition by namespace) as n from wiki where user is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select payload.action as k, mode(payload.distinct_size) as m, count(*) as n from github where payload.distinct_size is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select payload.action as k, payload.distinct_size as m, row_number() over (partition by payload.action order by count(*) desc, payload.distinct_size) as place, sum(count(*)) over (partition by payload.action) as n from github where payload.distinct_size is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select geoip.city_name as k, mode(geoip.country_iso_code) as m, count(*) as n from orders where geoip.country_iso_code is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select geoip.city_name as k, geoip.country_iso_code as m, row_number() over (partition by geoip.city_name order by count(*) desc, geoip.country_iso_code) as place, sum(count(*)) over (partition by geoip.city_name) as n from orders where geoip.country_iso_code is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select payload.ref_type as k, mode(repo.name) as m, count(*) as n from github where repo.name is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select payload.ref_type as k, repo.name as m, row_number() over (partition by payload.ref_type order by count(*) desc, repo.name) as place, sum(count(*)) over (partition by payload.ref_type) as n from github where repo.name is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select repo.name as k, mode(payload.distinct_size) as m, count(*) as n from github where payload.distinct_size is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select repo.name as k, payload.distinct_size as m, row_number() over (partition by repo.name order by count(*) desc, payload.distinct_size) as place, sum(count(*)) over (partition by repo.name) as n from github where payload.distinct_size is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select user as k, mode(geoip.country_iso_code) as m, count(*) as n from orders where geoip.country_iso_code is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select user as k, geoip.country_iso_code as m, row_number() over (partition by user order by count(*) desc, geoip.country_iso_code) as place, sum(count(*)) over (partition by user) as n from orders where geoip.country_iso_code is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select channel as k, mode(deleted) as m, count(*) as n from wiki where deleted is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select channel as k, deleted as m, row_number() over (partition by channel order by count(*) desc, deleted) as place, sum(count(*)) over (partition by channel) as n from wiki where deleted is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select countryName as k, mode(added) as m, count(*) as n from wiki where added is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select countryName as k, added as m, row_number() over (partition by countryName order by count(*) desc, added) as place, sum(count(*)) over (partition by countryName) as n from wiki where added is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select type as k, mode(payload.distinct_size) as m, count(*) as n from github where payload.distinct_size is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select type as k, payload.distinct_size as m, row_number() over (partition by type order by count(*) desc, payload.distinct_size) as place, sum(count(*)) over (partition by type) as n from github where payload.distinct_size is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select type as k, mode(payload.action) as m, count(*) as n from github where payload.action is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select type as k, payload.action as m, row_number() over (partition by type order by count(*) desc, payload.action) as place, sum(count(*)) over (partition by type) as n from github where payload.action is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select actor.login as k, mode(actor.id) as m, count(*) as n from github where actor.id is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select actor.login as k, actor.id as m, row_number() over (partition by actor.login order by count(*) desc, actor.id) as place, sum(count(*)) over (partition by actor.login) as n from github where actor.id is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select payload.ref_type as k, mode(payload.size) as m, count(*) as n from github where payload.size is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select payload.ref_type as k, payload.size as m, row_number() over (partition by payload.ref_type order by count(*) desc, payload.size) as place, sum(count(*)) over (partition by payload.ref_type) as n from github where payload.size is not null group by 1, 2) where place = 1 and n > 3

-- [mode]
select eventName as k, mode(awsRegion) as m, count(*) as n from trail where awsRegion is not null group by 1 having count(*) > 3
-- oracle: select k, m, n from (select eventName as k, awsRegion as m, row_number() over (partition by eventName order by count(*) desc, awsRegion) as place, sum(count(*)) over (partition by eventName) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where awsRegion is not null group by 1, 2) where place = 1 and n > 3

-- [approx_top_k]
select approx_top_k(actor.login, 3) as best from github where repo.name = 'naijaping/awonlist'
-- oracle: select list(x order by n desc, x) from (select actor.login as x, count(*) as n from github where repo.name = 'naijaping/awonlist' and actor.login is not null group by 1 order by n desc, x limit 3)

-- [approx_top_k]
select approx_top_k(user, 3) as best from wiki where user = 'ThitxongkhoiAWB'
-- oracle: select list(x order by n desc, x) from (select user as x, count(*) as n from wiki where user = 'ThitxongkhoiAWB' and user is not null group by 1 order by n desc, x limit 3)

-- [approx_top_k]
select approx_top_k(countryName, 8) as best from wiki where regionName = 'New Jersey'
-- oracle: select list(x order by n desc, x) from (select countryName as x, count(*) as n from wiki where regionName = 'New Jersey' and countryName is not null group by 1 order by n desc, x limit 8)

-- [approx_top_k]
select approx_top_k(eventSource, 7) as best from trail where eventSource = 'notifications.amazonaws.com'
-- oracle: select list(x order by n desc, x) from (select eventSource as x, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventSource = 'notifications.amazonaws.com' and eventSource is not null group by 1 order by n desc, x limit 7)

-- [approx_top_k]
select approx_top_k(geoip.country_iso_code, 6) as best from orders where geoip.city_name = 'Istanbul'
-- oracle: select list(x order by n desc, x) from (select geoip.country_iso_code as x, count(*) as n from orders where geoip.city_name = 'Istanbul' and geoip.country_iso_code is not null group by 1 order by n desc, x limit 6)

-- [approx_top_k]
select approx_top_k(day_of_week_i, 9) as best from orders where customer_gender = 'MALE'
-- oracle: select list(x order by n desc, x) from (select day_of_week_i as x, count(*) as n from orders where customer_gender = 'MALE' and day_of_week_i is not null group by 1 order by n desc, x limit 9)

-- [approx_top_k]
select approx_top_k(awsRegion, 7) as best from trail where errorCode = 'ObjectLockConfigurationNotFoundError'
-- oracle: select list(x order by n desc, x) from (select awsRegion as x, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where errorCode = 'ObjectLockConfigurationNotFoundError' and awsRegion is not null group by 1 order by n desc, x limit 7)

-- [approx_top_k]
select approx_top_k(payload.ref_type, 2) as best from github where payload.ref_type = 'branch'
-- oracle: select list(x order by n desc, x) from (select payload.ref_type as x, count(*) as n from github where payload.ref_type = 'branch' and payload.ref_type is not null group by 1 order by n desc, x limit 2)

-- [approx_top_k]
select approx_top_k(total_unique_products, 5) as best from orders where geoip.city_name = 'Marrakesh'
-- oracle: select list(x order by n desc, x) from (select total_unique_products as x, count(*) as n from orders where geoip.city_name = 'Marrakesh' and total_unique_products is not null group by 1 order by n desc, x limit 5)

-- [approx_top_k]
select approx_top_k(customer_id, 6) as best from orders where day_of_week = 'Friday'
-- oracle: select list(x order by n desc, x) from (select customer_id as x, count(*) as n from orders where day_of_week = 'Friday' and customer_id is not null group by 1 order by n desc, x limit 6)

-- [approx_top_k]
select approx_top_k(eventSource, 2) as best from trail where awsRegion = 'us-east-1'
-- oracle: select list(x order by n desc, x) from (select eventSource as x, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where awsRegion = 'us-east-1' and eventSource is not null group by 1 order by n desc, x limit 2)

-- [approx_top_k]
select approx_top_k(payload.ref_type, 11) as best from github where actor.login = 'mirror-updates'
-- oracle: select list(x order by n desc, x) from (select payload.ref_type as x, count(*) as n from github where actor.login = 'mirror-updates' and payload.ref_type is not null group by 1 order by n desc, x limit 11)

-- [approx_top_k]
select approx_top_k(awsRegion, 5) as best from trail where eventName = 'GetUser'
-- oracle: select list(x order by n desc, x) from (select awsRegion as x, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'GetUser' and awsRegion is not null group by 1 order by n desc, x limit 5)

-- [approx_top_k]
select approx_top_k(metroCode, 9) as best from wiki where channel = '#de.wikipedia'
-- oracle: select list(x order by n desc, x) from (select metroCode as x, count(*) as n from wiki where channel = '#de.wikipedia' and metroCode is not null group by 1 order by n desc, x limit 9)

-- [approx_top_k]
select approx_top_k(countryName, 1) as best from wiki where regionName = 'Tōkyō'
-- oracle: select list(x order by n desc, x) from (select countryName as x, count(*) as n from wiki where regionName = 'Tōkyō' and countryName is not null group by 1 order by n desc, x limit 1)

-- [approx_top_k]
select approx_top_k(total_quantity, 11) as best from orders where geoip.country_iso_code = 'EG'
-- oracle: select list(x order by n desc, x) from (select total_quantity as x, count(*) as n from orders where geoip.country_iso_code = 'EG' and total_quantity is not null group by 1 order by n desc, x limit 11)

-- [histogram]
select histogram(customer_gender) as counts from orders where geoip.country_iso_code = 'US'

-- [histogram]
select histogram(namespace) as counts from wiki where namespace = 'User talk'

-- [histogram]
select histogram(geoip.country_iso_code) as counts from orders where geoip.city_name = 'Cannes'

-- [histogram]
select histogram(eventSource) as counts from trail where eventSource = 'rds.amazonaws.com'
-- oracle: select histogram(eventSource) as counts from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventSource = 'rds.amazonaws.com'

-- [histogram]
select histogram(payload.size) as counts from github where payload.action = 'started'

-- [histogram]
select histogram(payload.distinct_size) as counts from github where type = 'IssuesEvent'

-- [histogram]
select histogram(channel) as counts from wiki where user = 'TuanUt'

-- [histogram]
select histogram(deleted) as counts from wiki where countryName = 'Italy'

-- [histogram]
select histogram(customer_gender) as counts from orders where geoip.city_name = 'Birmingham'

-- [histogram]
select histogram(user) as counts from wiki where regionName = 'Milan'

-- [histogram]
select histogram(actor.id) as counts from github where type = 'GollumEvent'

-- [histogram]
select histogram(repo.name) as counts from github where payload.ref_type = 'tag'

-- [histogram]
select histogram(repo.name) as counts from github where actor.login = 'gyuho'

-- [histogram]
select histogram(geoip.country_iso_code) as counts from orders where day_of_week = 'Friday'

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select page as id, regionName as k, time::timestamp as t from wiki where user = 'Cheers!-bot') a asof join (select regionName as k, time::timestamp as t, count(*) as n from wiki where user = 'TuHan-Bot' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select eventID as id, errorCode as k, eventTime::timestamp as t from trail where eventSource = 'iam.amazonaws.com') a asof join (select errorCode as k, eventTime::timestamp as t, count(*) as n from trail where eventSource = 'ec2.amazonaws.com' group by 1, 2) b on a.k = b.k and a.t <= b.t
-- oracle: select a.id, a.t, b.t as near, b.n from (select eventID as id, errorCode as k, eventTime::timestamp as t from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventSource = 'iam.amazonaws.com') a asof join (select errorCode as k, eventTime::timestamp as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventSource = 'ec2.amazonaws.com' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select order_id as id, customer_gender as k, order_date::timestamp as t from orders where day_of_week = 'Monday') a asof join (select customer_gender as k, order_date::timestamp as t, count(*) as n from orders where day_of_week = 'Thursday' group by 1, 2) b on a.k = b.k and a.t < b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select order_id as id, geoip.country_iso_code as k, order_date::timestamp as t from orders where customer_gender = 'FEMALE') a asof join (select geoip.country_iso_code as k, order_date::timestamp as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1, 2) b on a.k = b.k and a.t < b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select page as id, user as k, time::timestamp as t from wiki where namespace = 'Benutzer') a asof join (select user as k, time::timestamp as t, count(*) as n from wiki where namespace = 'Talk' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select page as id, namespace as k, time::timestamp as t from wiki where regionName = 'Milan') a asof left join (select namespace as k, time::timestamp as t, count(*) as n from wiki where regionName = 'New York' group by 1, 2) b on a.k = b.k and a.t > b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select eventID as id, eventSource as k, eventTime::timestamp as t from trail where eventName = 'GetParameter') a asof left join (select eventSource as k, eventTime::timestamp as t, count(*) as n from trail where eventName = 'GetParameter' group by 1, 2) b on a.k = b.k and a.t <= b.t
-- oracle: select a.id, a.t, b.t as near, b.n from (select eventID as id, eventSource as k, eventTime::timestamp as t from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'GetParameter') a asof left join (select eventSource as k, eventTime::timestamp as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'GetParameter' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select id as id, payload.action as k, created_at::timestamp as t from github where payload.ref_type = 'tag') a asof join (select payload.action as k, created_at::timestamp as t, count(*) as n from github where payload.ref_type = 'branch' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select eventID as id, awsRegion as k, eventTime::timestamp as t from trail where eventName = 'Decrypt') a asof join (select awsRegion as k, eventTime::timestamp as t, count(*) as n from trail where eventName = 'DescribeParameters' group by 1, 2) b on a.k = b.k and a.t >= b.t
-- oracle: select a.id, a.t, b.t as near, b.n from (select eventID as id, awsRegion as k, eventTime::timestamp as t from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'Decrypt') a asof join (select awsRegion as k, eventTime::timestamp as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'DescribeParameters' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select order_id as id, geoip.city_name as k, order_date::timestamp as t from orders where customer_gender = 'FEMALE') a asof left join (select geoip.city_name as k, order_date::timestamp as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select order_id as id, day_of_week as k, order_date::timestamp as t from orders where geoip.country_iso_code = 'MC') a asof join (select day_of_week as k, order_date::timestamp as t, count(*) as n from orders where geoip.country_iso_code = 'TR' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select page as id, namespace as k, time::timestamp as t from wiki where regionName = 'Virginia') a asof left join (select namespace as k, time::timestamp as t, count(*) as n from wiki where regionName = 'Milan' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select page as id, countryName as k, time::timestamp as t from wiki where regionName = 'Texas') a asof left join (select countryName as k, time::timestamp as t, count(*) as n from wiki where regionName = 'Michigan' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select eventID as id, eventName as k, eventTime::timestamp as t from trail where awsRegion = 'us-east-1') a asof join (select eventName as k, eventTime::timestamp as t, count(*) as n from trail where awsRegion = 'us-east-1' group by 1, 2) b on a.k = b.k and a.t < b.t
-- oracle: select a.id, a.t, b.t as near, b.n from (select eventID as id, eventName as k, eventTime::timestamp as t from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where awsRegion = 'us-east-1') a asof join (select eventName as k, eventTime::timestamp as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where awsRegion = 'us-east-1' group by 1, 2) b on a.k = b.k and a.t < b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select order_id as id, user as k, order_date::timestamp as t from orders where geoip.city_name = 'New York') a asof join (select user as k, order_date::timestamp as t, count(*) as n from orders where geoip.city_name = 'Cannes' group by 1, 2) b on a.k = b.k and a.t < b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select eventID as id, awsRegion as k, eventTime::timestamp as t from trail where eventSource = 'secretsmanager.amazonaws.com') a asof left join (select awsRegion as k, eventTime::timestamp as t, count(*) as n from trail where eventSource = 's3.amazonaws.com' group by 1, 2) b on a.k = b.k and a.t > b.t
-- oracle: select a.id, a.t, b.t as near, b.n from (select eventID as id, awsRegion as k, eventTime::timestamp as t from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventSource = 'secretsmanager.amazonaws.com') a asof left join (select awsRegion as k, eventTime::timestamp as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventSource = 's3.amazonaws.com' group by 1, 2) b on a.k = b.k and a.t > b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select page as id, countryName as k, time::timestamp as t from wiki where regionName = 'Tōkyō') a asof left join (select countryName as k, time::timestamp as t, count(*) as n from wiki where regionName = 'Tōkyō' group by 1, 2) b on a.k = b.k and a.t > b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select eventID as id, awsRegion as k, eventTime::timestamp as t from trail where eventName = 'GetParameter') a asof join (select awsRegion as k, eventTime::timestamp as t, count(*) as n from trail where eventName = 'DescribeEventAggregates' group by 1, 2) b on a.k = b.k and a.t <= b.t
-- oracle: select a.id, a.t, b.t as near, b.n from (select eventID as id, awsRegion as k, eventTime::timestamp as t from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'GetParameter') a asof join (select awsRegion as k, eventTime::timestamp as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'DescribeEventAggregates' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select id as id, actor.login as k, created_at::timestamp as t from github where repo.name = 'qdm/qdm.github.io') a asof join (select actor.login as k, created_at::timestamp as t, count(*) as n from github where repo.name = 'KenanSulayman/heartbeat' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join]
select a.id, a.t, b.t as near, b.n from (select id as id, repo.name as k, created_at::timestamp as t from github where payload.ref_type = 'tag') a asof join (select repo.name as k, created_at::timestamp as t, count(*) as n from github where payload.ref_type = 'tag' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select page as id, countryName as k, delta as t from wiki where namespace = 'Main') a asof join (select countryName as k, delta as t, count(*) as n from wiki where user = 'Cheers!-bot' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select order_id as id, user as k, day_of_week_i as t from orders where user = 'betty') a asof join (select user as k, day_of_week_i as t, count(*) as n from orders where day_of_week = 'Friday' group by 1, 2) b on a.k = b.k and a.t < b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select order_id as id, geoip.city_name as k, total_unique_products as t from orders where day_of_week = 'Wednesday') a asof left join (select geoip.city_name as k, total_unique_products as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select page as id, namespace as k, added as t from wiki where countryName = 'Spain') a asof left join (select namespace as k, added as t, count(*) as n from wiki where regionName = 'Moscow' group by 1, 2) b on a.k = b.k and a.t > b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select order_id as id, geoip.country_iso_code as k, total_quantity as t from orders where customer_gender = 'FEMALE') a asof join (select geoip.country_iso_code as k, total_quantity as t, count(*) as n from orders where day_of_week = 'Sunday' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select page as id, user as k, added as t from wiki where channel = '#uz.wikipedia') a asof left join (select user as k, added as t, count(*) as n from wiki where user = 'ThitxongkhoiAWB' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select id as id, repo.name as k, payload.size as t from github where payload.ref_type = 'branch') a asof left join (select repo.name as k, payload.size as t, count(*) as n from github where payload.ref_type = 'tag' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select id as id, payload.action as k, payload.size as t from github where payload.ref_type = 'tag') a asof left join (select payload.action as k, payload.size as t, count(*) as n from github where payload.action = 'created' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select order_id as id, user as k, total_quantity as t from orders where user = 'brigitte') a asof left join (select user as k, total_quantity as t, count(*) as n from orders where user = 'abd' group by 1, 2) b on a.k = b.k and a.t <= b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select order_id as id, user as k, day_of_week_i as t from orders where geoip.city_name = 'Marrakesh') a asof left join (select user as k, day_of_week_i as t, count(*) as n from orders where user = 'rabbia' group by 1, 2) b on a.k = b.k and a.t > b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select order_id as id, geoip.city_name as k, total_quantity as t from orders where geoip.country_iso_code = 'AE') a asof left join (select geoip.city_name as k, total_quantity as t, count(*) as n from orders where user = 'rani' group by 1, 2) b on a.k = b.k and a.t < b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select page as id, countryName as k, deleted as t from wiki where countryName = 'United Kingdom') a asof join (select countryName as k, deleted as t, count(*) as n from wiki where user = 'GHA-WDAS' group by 1, 2) b on a.k = b.k and a.t > b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select page as id, user as k, added as t from wiki where channel = '#fr.wikipedia') a asof left join (select user as k, added as t, count(*) as n from wiki where channel = '#zh.wikipedia' group by 1, 2) b on a.k = b.k and a.t > b.t

-- [asof join of numbers]
select a.id, a.t, b.t as near, b.n from (select id as id, actor.login as k, actor.id as t from github where payload.action = 'created') a asof left join (select actor.login as k, actor.id as t, count(*) as n from github where repo.name = 'blueboxgroup/ursula' group by 1, 2) b on a.k = b.k and a.t >= b.t

-- [correlated scalar]
select d.k, (select max(e.metroCode) from wiki e where e.namespace = d.k and e.metroCode > 2) as x from (select namespace as k, count(*) as n from wiki where namespace is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select count(*) from wiki e where e.countryName = d.k and e.added > 2) as x from (select countryName as k, count(*) as n from wiki where countryName is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select max(e.actor.id) from github e where e.actor.login = d.k and e.actor.id > 0) as x from (select actor.login as k, count(*) as n from github where actor.login is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select count(*) from wiki e where e.user = d.k and e.delta > 2) as x from (select user as k, count(*) as n from wiki where user is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select sum(e.customer_id) from orders e where e.customer_gender = d.k and e.customer_id > 0) as x from (select customer_gender as k, count(*) as n from orders where customer_gender is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select min(e.added) from wiki e where e.channel = d.k and e.added > 0) as x from (select channel as k, count(*) as n from wiki where channel is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select min(e.actor.id) from github e where e.repo.name = d.k and e.actor.id > 2) as x from (select repo.name as k, count(*) as n from github where repo.name is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select count(*) from orders e where e.geoip.country_iso_code = d.k and e.day_of_week_i > 1) as x from (select geoip.country_iso_code as k, count(*) as n from orders where geoip.country_iso_code is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select sum(e.customer_id) from orders e where e.geoip.city_name = d.k and e.customer_id > 0) as x from (select geoip.city_name as k, count(*) as n from orders where geoip.city_name is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select max(e.payload.distinct_size) from github e where e.actor.login = d.k and e.payload.distinct_size > 2) as x from (select actor.login as k, count(*) as n from github where actor.login is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select min(e.actor.id) from github e where e.type = d.k and e.actor.id > 2) as x from (select type as k, count(*) as n from github where type is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select max(e.total_unique_products) from orders e where e.day_of_week = d.k and e.total_unique_products > 1) as x from (select day_of_week as k, count(*) as n from orders where day_of_week is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select max(e.deleted) from wiki e where e.regionName = d.k and e.deleted > 1) as x from (select regionName as k, count(*) as n from wiki where regionName is not null group by 1 having count(*) > 20) d

-- [correlated scalar]
select d.k, (select max(e.added) from wiki e where e.countryName = d.k and e.added > 0) as x from (select countryName as k, count(*) as n from wiki where countryName is not null group by 1 having count(*) > 20) d

-- [correlated scalar in where]
select count(*), sum(d.payload.distinct_size) from github d where d.repo.name = 'cswetenham/tabspace2.1' and d.payload.distinct_size > (select avg(e.payload.distinct_size) from github e where e.repo.name = d.repo.name)

-- [correlated scalar in where]
select count(*), sum(d.delta) from wiki d where d.regionName = 'Tōkyō' and d.delta > (select avg(e.delta) from wiki e where e.regionName = d.regionName)

-- [correlated scalar in where]
select count(*), sum(d.total_quantity) from orders d where d.geoip.city_name = 'Monte Carlo' and d.total_quantity > (select avg(e.total_quantity) from orders e where e.user = d.user)

-- [correlated scalar in where]
select count(*), sum(d.added) from wiki d where d.namespace = 'User' and d.added > (select avg(e.added) from wiki e where e.namespace = d.namespace)

-- [correlated scalar in where]
select count(*), sum(d.customer_id) from orders d where d.day_of_week = 'Monday' and d.customer_id > (select avg(e.customer_id) from orders e where e.customer_gender = d.customer_gender)

-- [correlated scalar in where]
select count(*), sum(d.actor.id) from github d where d.payload.ref_type = 'tag' and d.actor.id > (select avg(e.actor.id) from github e where e.repo.name = d.repo.name)

-- [correlated scalar in where]
select count(*), sum(d.added) from wiki d where d.channel = '#fr.wikipedia' and d.added > (select avg(e.added) from wiki e where e.countryName = d.countryName)

-- [correlated scalar in where]
select count(*), sum(d.deleted) from wiki d where d.namespace = 'Discussioni utente' and d.deleted > (select avg(e.deleted) from wiki e where e.regionName = d.regionName)

-- [exists in two levels]
select d.payload.ref_type as k, count(*) as n from github d where exists (select 1 from github e where e.payload.ref_type = d.payload.ref_type and e.payload.ref_type = 'tag' and not exists (select 1 from github g where g.actor.login = e.actor.login and g.payload.distinct_size > 6)) group by 1

-- [exists in two levels]
select d.geoip.country_iso_code as k, count(*) as n from orders d where exists (select 1 from orders e where e.geoip.country_iso_code = d.geoip.country_iso_code and e.day_of_week = 'Tuesday' and not exists (select 1 from orders g where g.day_of_week = e.day_of_week and g.total_quantity > 8)) group by 1

-- [exists in two levels]
select d.namespace as k, count(*) as n from wiki d where exists (select 1 from wiki e where e.namespace = d.namespace and e.channel = '#pl.wikipedia' and not exists (select 1 from wiki g where g.regionName = e.regionName and g.delta > 10)) group by 1

-- [exists in two levels]
select d.channel as k, count(*) as n from wiki d where exists (select 1 from wiki e where e.channel = d.channel and e.channel = '#es.wikipedia' and not exists (select 1 from wiki g where g.regionName = e.regionName and g.deleted > 2)) group by 1

-- [exists in two levels]
select d.channel as k, count(*) as n from wiki d where exists (select 1 from wiki e where e.channel = d.channel and e.user = '아즈사봇' and not exists (select 1 from wiki g where g.regionName = e.regionName and g.added > 3)) group by 1

-- [exists in two levels]
select d.actor.login as k, count(*) as n from github d where exists (select 1 from github e where e.actor.login = d.actor.login and e.payload.ref_type = 'tag' and not exists (select 1 from github g where g.repo.name = e.repo.name and g.payload.size > 0)) group by 1

-- [exists in two levels]
select d.geoip.country_iso_code as k, count(*) as n from orders d where exists (select 1 from orders e where e.geoip.country_iso_code = d.geoip.country_iso_code and e.user = 'betty' and exists (select 1 from orders g where g.user = e.user and g.day_of_week_i > 2)) group by 1

-- [exists in two levels]
select d.user as k, count(*) as n from orders d where exists (select 1 from orders e where e.user = d.user and e.geoip.country_iso_code = 'EG' and not exists (select 1 from orders g where g.customer_gender = e.customer_gender and g.total_quantity > 4)) group by 1

-- [exists in two levels]
select d.repo.name as k, count(*) as n from github d where exists (select 1 from github e where e.repo.name = d.repo.name and e.actor.login = 'cm-gerrit' and not exists (select 1 from github g where g.actor.login = e.actor.login and g.payload.distinct_size > 4)) group by 1

-- [exists in two levels]
select d.geoip.city_name as k, count(*) as n from orders d where exists (select 1 from orders e where e.geoip.city_name = d.geoip.city_name and e.day_of_week = 'Wednesday' and not exists (select 1 from orders g where g.geoip.country_iso_code = e.geoip.country_iso_code and g.total_quantity > 4)) group by 1

-- [exists in two levels]
select d.regionName as k, count(*) as n from wiki d where exists (select 1 from wiki e where e.regionName = d.regionName and e.channel = '#it.wikipedia' and exists (select 1 from wiki g where g.namespace = e.namespace and g.added > 18)) group by 1

-- [exists in two levels]
select d.day_of_week as k, count(*) as n from orders d where exists (select 1 from orders e where e.day_of_week = d.day_of_week and e.geoip.country_iso_code = 'US' and not exists (select 1 from orders g where g.customer_gender = e.customer_gender and g.day_of_week_i > 6)) group by 1

-- [exists in two levels]
select d.regionName as k, count(*) as n from wiki d where exists (select 1 from wiki e where e.regionName = d.regionName and e.namespace = 'User talk' and not exists (select 1 from wiki g where g.countryName = e.countryName and g.deleted > 5)) group by 1

-- [exists in two levels]
select d.type as k, count(*) as n from github d where exists (select 1 from github e where e.type = d.type and e.actor.login = 'greatfire' and not exists (select 1 from github g where g.repo.name = e.repo.name and g.payload.size > 10)) group by 1

-- [at time zone]
select date_trunc('day', time::timestamp at time zone 'America/New_York') as t, count(*) as n from wiki where namespace = 'Discussioni utente' group by 1
-- oracle: select date_trunc('day', time::timestamptz at time zone 'America/New_York') as t, count(*) as n from wiki where namespace = 'Discussioni utente' group by 1

-- [at time zone]
select date_trunc('day', time::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from wiki where regionName = 'Virginia' group by 1
-- oracle: select date_trunc('day', time::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from wiki where regionName = 'Virginia' group by 1

-- [at time zone]
select date_trunc('day', time::timestamp at time zone 'Australia/Lord_Howe') as t, count(*) as n from wiki where regionName = 'England' group by 1
-- oracle: select date_trunc('day', time::timestamptz at time zone 'Australia/Lord_Howe') as t, count(*) as n from wiki where regionName = 'England' group by 1

-- [at time zone]
select date_trunc('day', order_date::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from orders where geoip.country_iso_code = 'EG' group by 1
-- oracle: select date_trunc('day', order_date::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from orders where geoip.country_iso_code = 'EG' group by 1

-- [at time zone]
select date_trunc('hour', eventTime::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from trail where eventName = 'AssumeRole' group by 1
-- oracle: select date_trunc('hour', eventTime::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) where eventName = 'AssumeRole' group by 1

-- [at time zone]
select date_trunc('day', created_at::timestamp at time zone 'America/New_York') as t, count(*) as n from github where payload.ref_type = 'branch' group by 1
-- oracle: select date_trunc('day', created_at::timestamptz at time zone 'America/New_York') as t, count(*) as n from github where payload.ref_type = 'branch' group by 1

-- [at time zone]
select date_trunc('hour', created_at::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from github where type = 'DeleteEvent' group by 1
-- oracle: select date_trunc('hour', created_at::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from github where type = 'DeleteEvent' group by 1

-- [at time zone]
select date_trunc('hour', order_date::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1
-- oracle: select date_trunc('hour', order_date::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1

-- [at time zone]
select date_trunc('day', order_date::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1
-- oracle: select date_trunc('day', order_date::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from orders where customer_gender = 'FEMALE' group by 1

-- [at time zone]
select date_trunc('day', created_at::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from github where payload.ref_type = 'repository' group by 1
-- oracle: select date_trunc('day', created_at::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from github where payload.ref_type = 'repository' group by 1

-- [at time zone]
select date_trunc('day', created_at::timestamp at time zone 'America/New_York') as t, count(*) as n from github where payload.action = 'started' group by 1
-- oracle: select date_trunc('day', created_at::timestamptz at time zone 'America/New_York') as t, count(*) as n from github where payload.action = 'started' group by 1

-- [at time zone]
select date_trunc('day', created_at::timestamp at time zone 'Asia/Kolkata') as t, count(*) as n from github where payload.ref_type = 'tag' group by 1
-- oracle: select date_trunc('day', created_at::timestamptz at time zone 'Asia/Kolkata') as t, count(*) as n from github where payload.ref_type = 'tag' group by 1

-- [tablesample]
select awsRegion as k, count(*) as n from trail tablesample system (100) group by 1
-- oracle: select awsRegion as k, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) group by 1

-- [tablesample]
select day_of_week as k, count(*) as n from orders tablesample bernoulli (100 percent) group by 1
-- oracle: select day_of_week as k, count(*) as n from orders group by 1

-- [tablesample]
select customer_gender as k, count(*) as n from orders tablesample system (100) group by 1
-- oracle: select customer_gender as k, count(*) as n from orders group by 1

-- [tablesample]
select eventSource as k, count(*) as n from trail tablesample bernoulli (100 percent) group by 1
-- oracle: select eventSource as k, count(*) as n from (select doc->>'$.eventSource' as eventSource, doc->>'$.eventName' as eventName, doc->>'$.errorCode' as errorCode, doc->>'$.awsRegion' as awsRegion, doc->>'$.eventTime' as eventTime, doc->>'$.eventID' as eventID from trail_raw) group by 1

-- [tablesample]
select regionName as k, count(*) as n from wiki tablesample bernoulli (100 percent) group by 1
-- oracle: select regionName as k, count(*) as n from wiki group by 1

-- [tablesample]
select type as k, count(*) as n from github tablesample bernoulli (100 percent) group by 1
-- oracle: select type as k, count(*) as n from github group by 1
